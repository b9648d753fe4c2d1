"""Stands around every handler of a server: gives the call a request id and turns what is raised into a status.

A KintsugiError becomes its status with rich details. A message that cannot be parsed is the caller's fault. Anything
else is a defect: it is logged with its traceback, and the caller learns the request id only. Cancellation and aborts
pass through.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from kintsugi import telemetry
from kintsugi.errors import Internal, InvalidArgument, KintsugiError
from kintsugi.rpc.errors import to_rich_status

# Strings: these classes take parameters in the stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = "Callable[[Any, Context], Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        # None means that there is no such method: gRPC answers UNIMPLEMENTED.
        return _wrap(handler, handler_call_details.method) if handler is not None else handler


def _wrap(handler: "Handler", method: str) -> "Handler":
    behaviour: Any  # the stubs know only the handlers of synchronous servers
    if handler.request_streaming and handler.response_streaming:
        behaviour, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
    elif handler.response_streaming:
        behaviour, make = handler.unary_stream, grpc.unary_stream_rpc_method_handler
    elif handler.request_streaming:
        behaviour, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
    else:
        behaviour, make = handler.unary_unary, grpc.unary_unary_rpc_method_handler
    guarded = _guard_stream(behaviour, method) if handler.response_streaming else _guard_unary(behaviour, method)
    return make(guarded, _parser(handler), handler.response_serializer)


def _parser(handler: "Handler") -> Callable[[bytes], Any] | None:
    """The handler's deserializer for messages that may be malformed. What it raises reaches a handler that reads a
    stream, but would pass by any other one: to that the error is given in place of the request."""
    deserialize = handler.request_deserializer
    if deserialize is None:
        return None

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            refusal = InvalidArgument("request", f"cannot be parsed: {error}")
            if handler.request_streaming:
                raise refusal from error
            return refusal

    return parse


def _guard_unary(behaviour: Behaviour, method: str) -> Behaviour:
    async def call(request: Any, context: Context) -> Any:
        _begin(context)
        try:
            _check_parsed(request)
            return await behaviour(request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 -- the edge of the process: everything becomes a status
            await _abort(error, context, method)

    return call


def _guard_stream(behaviour: Behaviour, method: str) -> Behaviour:
    """A streaming handler is an async generator, or a coroutine that calls context.write."""

    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        _begin(context)
        try:
            _check_parsed(request)
            answers = behaviour(request, context)
            if inspect.isawaitable(answers):
                await answers
                return
            async for answer in answers:
                yield answer
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 -- the edge of the process: everything becomes a status
            await _abort(error, context, method)

    return call


def _check_parsed(request: Any) -> None:
    if isinstance(request, InvalidArgument):
        raise request


def _begin(context: Context) -> None:
    offered = next(
        (value for key, value in context.invocation_metadata() or () if key == telemetry.REQUEST_ID_KEY), None
    )
    telemetry.bind_request_id(offered if isinstance(offered, str) else None)


async def _abort(error: Exception, context: Context, method: str) -> None:
    if isinstance(error, KintsugiError):
        known = error
    else:
        telemetry.logger("rpc").error(telemetry.LogEvent.RPC_FAILED, method=method, exc_info=error)
        known = Internal(f"internal error, request {telemetry.request_id()}")
    status = rpc_status.to_status(to_rich_status(known))
    await context.abort(status.code, status.details, status.trailing_metadata)
