"""Asks many things on one stream that stays open: the caller's side of kintsugi/rpc/streaming.py.

1. The stream is opened by the first who asks, and opened again after it broke.
2. Everybody waits for his own answer, with his own deadline, and what he asked is given up at the server when he waits no more.
3. When the stream breaks, all that wait on it fail as their calls would have.
4. A server of the release before, or a proxy, may know calls only. It is asked for a stream again now and then.

Knows nothing about what is asked.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.rpc import status_pb2

from kintsugi.cancelling import end
from kintsugi.errors import DeadlineExceeded, Unavailable
from kintsugi.rpc.errors import StreamedStatus, from_rich_status, from_rpc_error, is_masked
from kintsugi.telemetry.tracing import Metadata

# Hits of one answer above which a search should have a call of its own: some 100 KB.
LONG_ANSWER_HITS: Final = 4096
_ASKED_AGAIN_S = 60.0


class Answered(Protocol):
    """A message with an answer, or with a status."""

    @property
    def number(self) -> int: ...
    @property
    def status(self) -> bytes: ...


Answer = TypeVar("Answer", bound=Answered)


class NoStreams(Exception):
    """The server knows calls only."""


class KeptStream(Generic[Answer]):
    """The stream to one server, whenever there is one. `begin` makes the call, `message` a message out of its number and fields."""

    def __init__(
        self, begin: "Callable[[], grpc.aio.StreamStreamCall[Any, Answer]]", message: Callable[..., Any]
    ) -> None:
        self._begin = begin
        self._message = message
        self._stream: _OpenStream[Answer] | None = None
        self._calls_until = float("-inf")

    async def ask(self, request: Mapping[str, Any], timeout_s: float, metadata: Metadata) -> Answer:
        """The message that answers; `request` are the fields of the message that ask. Raises the KintsugiError of what was
        asked, Unavailable when the stream ends, NoStreams when the server has none."""
        if time.monotonic() < self._calls_until:
            raise NoStreams
        if self._stream is None or self._stream.is_broken:
            # It outlives the call that opens it, and has no part in its trace.
            self._stream = Context().run(self._opened)
        try:
            return await self._stream.ask(request, timeout_s, metadata)
        except NoStreams:
            self._calls_until = time.monotonic() + _ASKED_AGAIN_S
            raise

    async def close(self) -> None:
        """Ends the stream; what waits on it fails."""
        if self._stream is not None:
            await self._stream.close()

    def _opened(self) -> "_OpenStream[Answer]":
        return _OpenStream(self._begin(), self._message)


class _OpenStream(Generic[Answer]):
    """One task reads, one writes: gRPC ends the whole stream when a write is cancelled, so nobody who may give up does so
    himself."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[Any, Answer]", message: Callable[..., Any]) -> None:
        self._call = call
        self._message = message
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        # Those given up leave whether or not anybody waits.
        self._leaving: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue()
        self._failure: Exception | None = None
        self._writing = asyncio.create_task(self._write())
        self._reading = asyncio.create_task(self._read())

    @property
    def is_broken(self) -> bool:
        return self._failure is not None

    async def ask(self, request: Mapping[str, Any], timeout_s: float, metadata: Metadata) -> Answer:
        number = next(self._numbers)
        headers = [{"key": key, "value": value} for key, value in metadata]
        message = self._message(number=number, timeout_s=timeout_s, headers=headers, **request)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._leaving.put_nowait((False, message))
        try:
            async with asyncio.timeout(timeout_s):
                told = await answer
        except TimeoutError as error:
            raise DeadlineExceeded("no answer within the deadline") from error
        finally:
            if self._waiting.pop(number, None) is not None:
                self._leaving.put_nowait((True, self._message(number=number)))
        if told.status:
            raise from_rich_status(status_pb2.Status.FromString(told.status)) from StreamedStatus()
        return told

    async def close(self) -> None:
        self._call.cancel()
        await end((self._reading, self._writing))

    async def _write(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # the reader learns why it ended
            while True:
                gives_up, message = await self._leaving.get()
                if gives_up or message.number in self._waiting:
                    await self._call.write(message)

    async def _read(self) -> None:
        failure: Exception = Unavailable("the stream was closed")
        try:
            while (read := await self._call.read()) is not grpc.aio.EOF:
                message = cast("Answer", read)
                answer = self._waiting.pop(message.number, None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            # The server drained: what it read it has answered.
            failure = Unavailable("the server ended the stream")
        except grpc.RpcError as error:
            failure = _failure_of(error)
        finally:
            self._failure = failure
            self._writing.cancel()
            waiting, self._waiting = self._waiting, {}
            for answer in waiting.values():
                if not answer.done():
                    answer.set_exception(failure)


def _failure_of(error: grpc.RpcError) -> Exception:
    if is_masked(error):
        # Another attempt hears what is the matter, if more is than that the server drained.
        return Unavailable("the server ended the stream while something was being asked")
    known = from_rpc_error(error)
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
    return NoStreams() if code is grpc.StatusCode.UNIMPLEMENTED else known
