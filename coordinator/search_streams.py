"""Sends searches to shard servers on streams that stay open: a message costs a third of a call.

1. One stream per address, opened by the first search, opened again after it broke.
2. Every search waits for its own answer, with its own deadline, and is given up at the server when nobody waits any more.
3. When a stream breaks, all that wait on it fail as their calls would have: their shards are asked again by fanout.
4. Searches whose answers may be long take a call of their own, so that short ones do not stand behind them.
5. A shard server of the release before has no streams: it gets calls.
"""

import asyncio
import contextlib
import itertools

import grpc
import grpc.aio
from google.rpc import status_pb2

from coordinator.deadline import Deadline
from coordinator.shards import ShardCalls, StubOf
from kintsugi.cancelling import end
from kintsugi.errors import DeadlineExceeded, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.rpc.errors import from_rich_status, from_rpc_error
from kintsugi.telemetry.tracing import outgoing_metadata

# Hits of one answer above which it has a call of its own: some 100 KB.
_LONG_ANSWER_HITS = 4096


class SearchStreams:
    def __init__(self, stub_of: StubOf, calls: ShardCalls) -> None:
        self._stub_of = stub_of
        self._calls = calls
        self._streams: dict[str, _Stream] = {}

    async def search(
        self, address: str, request: shard_pb2.ShardSearchRequest, deadline: Deadline
    ) -> shard_pb2.ShardSearchResponse:
        """Raises the KintsugiError of the search."""
        if _may_be_long(request):
            return await self._calls.search(address, request, deadline)
        stream = self._streams.get(address)
        if stream is None or stream.is_broken:
            stream = self._streams[address] = _Stream(self._stub_of(address).SearchStream())
        try:
            return await stream.search(request, deadline)
        except _NoStreams:
            return await self._calls.search(address, request, deadline)

    async def close(self) -> None:
        """Ends all streams; what waits on them fails."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            await stream.close()


def _may_be_long(request: shard_pb2.ShardSearchRequest) -> bool:
    size = max(1, request.group_by.size)
    return (
        request.exact
        or request.fields.attributes
        or request.fields.text
        or (request.count * request.k * size > _LONG_ANSWER_HITS)
    )


class _NoStreams(Exception):
    """The server knows calls only."""


class _Stream:
    """An open stream to one shard server. One task reads, one writes: gRPC ends the whole stream when a write is cancelled, so
    nobody who may give up does so himself."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[shard_pb2.StreamedSearch, shard_pb2.StreamedAnswer]") -> None:
        self._call = call
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[shard_pb2.StreamedAnswer]] = {}
        self._leaving: asyncio.Queue[shard_pb2.StreamedSearch] = asyncio.Queue()
        self._failure: Exception | None = None
        self._writing = asyncio.create_task(self._write())
        self._reading = asyncio.create_task(self._read())

    @property
    def is_broken(self) -> bool:
        return self._failure is not None

    async def search(self, request: shard_pb2.ShardSearchRequest, deadline: Deadline) -> shard_pb2.ShardSearchResponse:
        number = next(self._numbers)
        headers = [shard_pb2.Header(key=key, value=value) for key, value in outgoing_metadata()]
        timeout_s = deadline.remaining_s
        message = shard_pb2.StreamedSearch(number=number, search=request, timeout_s=timeout_s, headers=headers)
        answer: asyncio.Future[shard_pb2.StreamedAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._leaving.put_nowait(message)
        try:
            async with asyncio.timeout(timeout_s):
                told = await answer
        except TimeoutError as error:
            raise DeadlineExceeded("no answer within the deadline") from error
        finally:
            if self._waiting.pop(number, None) is not None:
                self._leaving.put_nowait(shard_pb2.StreamedSearch(number=number))
        if told.status:
            raise from_rich_status(status_pb2.Status.FromString(told.status))
        return told.answer

    async def close(self) -> None:
        self._call.cancel()
        await end((self._reading, self._writing))

    async def _write(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # the reader learns why it ended
            while True:
                message = await self._leaving.get()
                if message.number in self._waiting or not message.HasField("search"):
                    await self._call.write(message)

    async def _read(self) -> None:
        failure: Exception = Unavailable("the stream was closed")
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                assert isinstance(message, shard_pb2.StreamedAnswer)
                answer = self._waiting.pop(message.number, None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            # The server drained: what it read it has answered.
            failure = Unavailable("the shard server ended the stream")
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
    known = from_rpc_error(error)
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
    return _NoStreams() if code is grpc.StatusCode.UNIMPLEMENTED else known
