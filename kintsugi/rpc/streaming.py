"""Serves many calls on one stream: the server's side of kintsugi/rpc/open_stream.py.

1. Each message is a call of its own: own task, own request id, metrics and span, own deadline, own status.
2. Answers leave as they are ready, one write at a time.
3. A message without a request gives up the call of its number.
4. No more than MAX_CALLS are in work or wait to be written: beyond them nothing is read, and gRPC holds the client up.
5. When the client has no more to ask, what is in work is answered. When the server drains, no more is read, likewise, so that a
   stream that never ends by itself does not hold up a shutdown.

Knows nothing about what is asked.
"""

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio

from kintsugi.errors import InvalidArgument
from kintsugi.limits import DEFAULT_DEADLINE_S, MAX_MESSAGE_BYTES
from kintsugi.rpc.errors import code_of, to_rich_status, too_large
from kintsugi.rpc.interceptor import known_error
from kintsugi.rpc.served_calls import CANCELLED, OK, Method

Request = TypeVar("Request")
Context = grpc.aio.ServicerContext[Any, Any]

# Of one stream.
MAX_CALLS: Final = 1024


class TimeLeft:
    """Stands where a call's context stands for whoever asks for the time that is left."""

    def __init__(self, timeout_s: float) -> None:
        """0 stands for the usual time. Raises InvalidArgument."""
        if not (math.isfinite(timeout_s) and timeout_s >= 0):
            raise InvalidArgument("timeout_s", f"is {timeout_s:g}", "must be finite and at least 0")
        self._until = time.monotonic() + (timeout_s or DEFAULT_DEADLINE_S)

    def time_remaining(self) -> float:
        return max(0.0, self._until - time.monotonic())


@dataclass(frozen=True, slots=True)
class UnaryMethod(Generic[Request]):
    """The unary method whose place a message takes: its full name, and `serve(request, time_left)` that answers."""

    name: str
    serve: Callable[[Request, TimeLeft], Awaitable[Any]]


class StreamedCalls:
    """`methods` by the type of their requests; `pack(number, answer, status)` makes the message."""

    def __init__(
        self,
        methods: Mapping[type[Any], UnaryMethod[Any]],
        pack: Callable[[int, Any, bytes], Any],
        draining: asyncio.Event,
    ) -> None:
        self._methods = {kind: (method, Method(method.name)) for kind, method in methods.items()}
        self._pack = pack
        self._draining = draining

    async def run(self, context: Context, request_of: Callable[[Any], Any]) -> None:
        """Serves one stream to its end. `request_of` finds the request in a message, None in one that gives up."""
        stream = _Stream(context, request_of, self._served)
        draining = asyncio.create_task(self._draining.wait())
        try:
            await stream.run(draining)
        finally:
            draining.cancel()

    async def _served(self, number: int, request: Any, timeout_s: float, headers: Sequence[tuple[str, str]]) -> Any:
        """The message with the answer to one request, or with its status."""
        method, told = self._methods[type(request)]
        served, code = told.begin(headers), OK
        try:
            return _bounded(self._pack(number, await method.serve(request, TimeLeft(timeout_s)), b""))
        except asyncio.CancelledError:
            code = CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 -- the edge of the process: everything becomes a status
            known = known_error(error, method.name)
            code = code_of(known).name
            return self._pack(number, None, to_rich_status(known).SerializeToString())
        finally:
            served.end(code)


class _Stream:
    """One stream: a task reads, a task writes, and every request has a task of its own. Nobody else writes: gRPC refuses all
    further writes after one that was cancelled."""

    def __init__(
        self,
        context: Context,
        request_of: Callable[[Any], Any],
        serve: Callable[[int, Any, float, Sequence[tuple[str, str]]], Awaitable[Any]],
    ) -> None:
        self._context = context
        self._request_of = request_of
        self._serve = serve
        self._running: dict[int, asyncio.Task[None]] = {}
        self._leaving: asyncio.Queue[Any] = asyncio.Queue()
        self._free = asyncio.Semaphore(MAX_CALLS)

    async def run(self, draining: "asyncio.Task[Any]") -> None:
        reading, writing = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            await asyncio.wait((reading, writing, draining), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            reading.cancel()
            # The client has asked all it wanted to, or the server drains.
            if self._running and not writing.done():
                await asyncio.wait((*self._running.values(),))
            self._leaving.put_nowait(None)
            await writing
        finally:
            for task in (reading, writing, *self._running.values()):
                task.cancel()

    async def _read(self) -> None:
        while (message := await self._context.read()) is not grpc.aio.EOF:
            request = self._request_of(message)
            if request is not None:
                await self._free.acquire()
                self._begin(message, request)
            elif (given_up := self._running.get(message.number)) is not None:
                given_up.cancel()

    def _begin(self, message: Any, request: Any) -> None:
        if message.number in self._running:
            raise InvalidArgument("number", f"is {message.number}, which is in work", "must be another one")
        headers = [(header.key, header.value) for header in message.headers]
        answering = self._answer(message.number, request, message.timeout_s, headers)
        task = self._running[message.number] = asyncio.create_task(answering)
        task.add_done_callback(functools.partial(self._forget, message.number))

    async def _answer(self, number: int, request: Any, timeout_s: float, headers: Sequence[tuple[str, str]]) -> None:
        self._leaving.put_nowait(await self._serve(number, request, timeout_s, headers))

    def _forget(self, number: int, task: "asyncio.Task[None]") -> None:
        self._running.pop(number, None)
        if task.cancelled():  # there is nothing to write
            self._free.release()

    async def _write(self) -> None:
        while (message := await self._leaving.get()) is not None:
            await self._context.write(message)
            self._free.release()


def _bounded(message: Any) -> Any:
    """A message that gRPC refuses would end the stream, and with it the calls of others."""
    if (size := message.ByteSize()) > MAX_MESSAGE_BYTES:
        raise too_large(f"{size} bytes")
    return message
