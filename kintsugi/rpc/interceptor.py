"""Stands around every handler of a server: gives the call a request id, turns what is raised into a status, and notes
the call in metrics and, when it is traced, in a span (served_calls.py).

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
from kintsugi.rpc.errors import code_of, to_rich_status
from kintsugi.rpc.served_calls import CANCELLED, OK, Method

# Strings: these classes take parameters in the stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = "Callable[[Any, Context], Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # there is no such method: gRPC answers UNIMPLEMENTED
                return None
            wrapped = self._wrapped[method] = _wrap(handler, method)
        return wrapped


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
    of_method = Method(method)

    async def call(request: Any, context: Context) -> Any:
        served, code = of_method.begin(context.invocation_metadata()), OK
        try:
            _check_parsed(request)
            return await behaviour(request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            code = CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 -- the edge of the process: everything becomes a status
            known = known_error(error, method)
            code = code_of(known).name
            await _abort(known, context)
        finally:
            served.end(code)

    return call


def _guard_stream(behaviour: Behaviour, method: str) -> Behaviour:
    """A streaming handler is an async generator, or a coroutine that calls context.write."""
    of_method = Method(method)

    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        served, code = of_method.begin(context.invocation_metadata()), OK
        try:
            _check_parsed(request)
            answers = behaviour(request, context)
            if inspect.isawaitable(answers):
                await answers
                return
            async for answer in answers:
                yield answer
        except (asyncio.CancelledError, grpc.aio.AbortError):
            code = CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 -- the edge of the process: everything becomes a status
            known = known_error(error, method)
            code = code_of(known).name
            await _abort(known, context)
        finally:
            served.end(code)

    return call


def _check_parsed(request: Any) -> None:
    if isinstance(request, InvalidArgument):
        raise request


def known_error(error: Exception, method: str) -> KintsugiError:
    """What a caller of `method` is told: our own errors as they are, everything else as a defect that was logged."""
    if isinstance(error, KintsugiError):
        return error
    telemetry.logger("rpc").error(telemetry.LogEvent.RPC_FAILED, method=method, exc_info=error)
    return Internal(f"internal error, request {telemetry.request_id()}")


async def _abort(error: KintsugiError, context: Context) -> None:
    status = rpc_status.to_status(to_rich_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
