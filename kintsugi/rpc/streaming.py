"""Serves many calls on one stream: the server's side of coordinator/search_streams.py.

1. Each message is a call of its own: own task, own request id, metrics and span, own deadline, own status.
2. Answers leave as they are ready, one write at a time.
3. A message without a request gives up the call of its number.
4. When the server drains, no more is read, what is in work is answered, and the stream ends well, so that a stream that
   never ends by itself does not hold up a shutdown.

Knows nothing about what is asked.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from kintsugi.limits import MAX_MESSAGE_BYTES
from kintsugi.rpc.errors import code_of, to_rich_status, too_large
from kintsugi.rpc.interceptor import known_error
from kintsugi.rpc.served_calls import CANCELLED, OK, Method

Request = TypeVar("Request")
Context = grpc.aio.ServicerContext[Any, Any]


class TimeLeft:
    """Stands where a call's context stands for whoever asks for the time that is left."""

    def __init__(self, timeout_s: float) -> None:
        self._until = time.monotonic() + timeout_s

    def time_remaining(self) -> float:
        return max(0.0, self._until - time.monotonic())


class StreamedCalls(Generic[Request]):
    """`method` is the full name of the unary method whose place each message takes. `serve(request, time_left)` gives its answer;
    `pack(number, answer, status)` makes the message."""

    def __init__(
        self,
        method: str,
        serve: Callable[[Request, TimeLeft], Awaitable[Any]],
        pack: Callable[[int, Any, bytes], Any],
        draining: asyncio.Event,
    ) -> None:
        self._method = Method(method)
        self._name = method
        self._serve = serve
        self._pack = pack
        self._draining = draining

    async def run(self, context: Context, request_of: Callable[[Any], Request | None]) -> None:
        """Serves one stream to its end. `request_of` finds the request in a message, None in one that gives up."""
        stream = _Stream(context, request_of, self._served)
        draining = asyncio.create_task(self._draining.wait())
        try:
            await stream.run(draining)
        finally:
            draining.cancel()

    async def _served(
        self, number: int, request: Request, time_left: TimeLeft, headers: Sequence[tuple[str, str]]
    ) -> Any:
        """The message with the answer to one request, or with its status."""
        served, code = self._method.begin(headers), OK
        try:
            return _bounded(self._pack(number, await self._serve(request, time_left), b""))
        except asyncio.CancelledError:
            code = CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 -- the edge of the process: everything becomes a status
            known = known_error(error, self._name)
            code = code_of(known).name
            return self._pack(number, None, to_rich_status(known).SerializeToString())
        finally:
            served.end(code)


class _Stream(Generic[Request]):
    """One stream: a task reads, a task writes, and every request has a task of its own. Nobody else writes: gRPC refuses all
    further writes after one that was cancelled."""

    def __init__(
        self,
        context: Context,
        request_of: Callable[[Any], Request | None],
        serve: Callable[[int, Request, TimeLeft, Sequence[tuple[str, str]]], Awaitable[Any]],
    ) -> None:
        self._context = context
        self._request_of = request_of
        self._serve = serve
        self._running: dict[int, asyncio.Task[None]] = {}
        self._leaving: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self, draining: "asyncio.Task[Any]") -> None:
        reading, writing = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            await asyncio.wait((reading, writing, draining), return_when=asyncio.FIRST_COMPLETED)
            if draining.done() and not reading.done():
                reading.cancel()
                if self._running:
                    await asyncio.wait(list(self._running.values()))
            self._leaving.put_nowait(None)
            await writing
            if not reading.cancelled() and reading.done():
                reading.result()
        finally:
            for task in (reading, writing, *self._running.values()):
                task.cancel()

    async def _read(self) -> None:
        while (message := await self._context.read()) is not grpc.aio.EOF:
            request = self._request_of(message)
            if request is not None:
                self._begin(message, request)
            elif (given_up := self._running.get(message.number)) is not None:
                given_up.cancel()

    def _begin(self, message: Any, request: Request) -> None:
        headers = [(header.key, header.value) for header in message.headers]
        answering = self._answer(message.number, request, TimeLeft(message.timeout_s), headers)
        task = self._running[message.number] = asyncio.create_task(answering)
        task.add_done_callback(functools.partial(self._forget, message.number))

    async def _answer(
        self, number: int, request: Request, time_left: TimeLeft, headers: Sequence[tuple[str, str]]
    ) -> None:
        self._leaving.put_nowait(await self._serve(number, request, time_left, headers))

    def _forget(self, number: int, _task: "asyncio.Task[None]") -> None:
        self._running.pop(number, None)

    async def _write(self) -> None:
        while (message := await self._leaving.get()) is not None:
            await self._context.write(message)


def _bounded(message: Any) -> Any:
    """A message that gRPC refuses would end the stream, and with it the calls of others."""
    if (size := message.ByteSize()) > MAX_MESSAGE_BYTES:
        raise too_large(f"{size} bytes")
    return message
