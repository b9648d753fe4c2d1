"""Streaming bulk upsert: a bounded number of chunks in flight, answered in the order of the chunks.

1. Chunks are validated and logged in their order, so that the last write of a document wins.
2. The next chunk is read only when there is room for it: a slow log slows the caller down, not this process's memory.
3. A bad item is refused alone. What concerns the whole call ends it, after the chunks before it were answered.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from coordinator.deadline import Deadline
from coordinator.operations import Write
from coordinator.writes import Writes
from kintsugi.errors import InvalidArgument, KintsugiError
from kintsugi.v1 import documents_pb2

Answer = asyncio.Task[documents_pb2.BulkUpsertResponse]
Requests = AsyncIterator[documents_pb2.BulkUpsertRequest]


class Bulk:
    def __init__(self, writes: Writes, *, chunks_in_flight: int) -> None:
        self._writes = writes
        self._chunks_in_flight = chunks_in_flight

    async def upsert(
        self, requests: Requests, chunk_deadline: Callable[[], Deadline]
    ) -> AsyncIterator[documents_pb2.BulkUpsertResponse]:
        """`chunk_deadline` gives a chunk its deadline when it arrives."""
        call = _Call(self._writes, requests, chunk_deadline, self._chunks_in_flight)
        reader = asyncio.create_task(call.read())
        try:
            async for answer in call.answers():
                yield await answer
            await reader  # raises what ended the call
        finally:
            reader.cancel()
            call.cancel()


class _Call:
    """One call: the reader starts tasks, the writer takes their results in order."""

    def __init__(
        self, writes: Writes, requests: Requests, chunk_deadline: Callable[[], Deadline], chunks_in_flight: int
    ) -> None:
        self._writes = writes
        self._requests = requests
        self._chunk_deadline = chunk_deadline
        self._room = asyncio.Semaphore(chunks_in_flight)
        self._started: deque[Answer] = deque()
        self._all_read = False
        self._news = asyncio.Event()

    async def read(self) -> None:
        """Starts the chunks of the call. Raises what concerns the whole call."""
        expected, first = 0, None
        try:
            await self._room.acquire()
            async for request in self._requests:
                first = first or request.upsert
                _check_sequence(request, expected, first)
                expected += 1
                deadline = self._chunk_deadline()
                write = await self._validated(request, deadline)
                self._started.append(asyncio.create_task(self._answer(request.chunk, write, deadline)))
                self._news.set()
                await self._room.acquire()
        finally:
            self._all_read = True
            self._news.set()

    async def answers(self) -> AsyncIterator[Answer]:
        """The tasks in the order of the chunks. Each makes room when the next one is asked for."""
        while True:
            self._news.clear()
            if self._started:
                yield self._started[0]
                self._started.popleft()
                self._room.release()
            elif self._all_read:
                return
            else:
                await self._news.wait()

    def cancel(self) -> None:
        for task in self._started:
            task.cancel()

    async def _validated(self, request: documents_pb2.BulkUpsertRequest, deadline: Deadline) -> Write:
        with _within(request.chunk):
            return await self._writes.validated_chunk(request.upsert, deadline)

    async def _answer(self, chunk: int, write: Write, deadline: Deadline) -> documents_pb2.BulkUpsertResponse:
        with _within(chunk):
            response = await self._writes.write_chunk(write, deadline)
        return documents_pb2.BulkUpsertResponse(chunk=chunk, response=response)


@contextmanager
def _within(chunk: int) -> Iterator[None]:
    """Errors of an upsert become errors of its chunk."""
    try:
        yield
    except KintsugiError as error:
        error.message = f"chunk {chunk}: {error.message}"
        error.args = (error.message,)
        if error.field:
            error.field = f"upsert.{error.field}"
        raise


def _check_sequence(
    request: documents_pb2.BulkUpsertRequest, expected: int, first: documents_pb2.UpsertRequest
) -> None:
    if request.chunk != expected:
        raise InvalidArgument("chunk", f"is {request.chunk}", f"must be {expected}: chunks count from 0 without gaps")
    upsert = request.upsert
    for name in ("collection", "acknowledgement", "durable_replicas"):
        found, wanted = getattr(upsert, name), getattr(first, name)
        if found != wanted:
            raise InvalidArgument(
                f"upsert.{name}", f"is {found!r} in chunk {expected}", f"must be {wanted!r} as before"
            )
