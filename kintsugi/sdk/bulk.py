"""Bulk upsert: chunks over one BulkUpsert stream, a bounded window of them in flight, continued when the stream breaks.

1. A chunk is held until its answer is there, so that memory is bounded by the window.
2. A chunk has one request id for good. After a broken stream, or a switch of the coordinator, the unanswered chunks are
   sent again with theirs: what was already written is not written twice.
3. An answer that leaves items unsettled (not written, unknown) sends the whole chunk again, until it is settled or the
   call has made no progress for its timeout.
4. Chunks are cut the same way from the same input: repeating a call with its request id repeats its chunks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np

from kintsugi import tokens
from kintsugi.errors import DeadlineExceeded, InvalidArgument, KintsugiError, Unavailable
from kintsugi.rpc.errors import grpc_errors, is_masked, is_told
from kintsugi.sdk import answers, arrays
from kintsugi.sdk.connection import Connection
from kintsugi.sdk.convert import Ids, Items
from kintsugi.sdk.retry import at_the_deadline, is_retryable
from kintsugi.sdk.types import BulkResult, FloatArray, Outcome, UintArray, UnappliedItem, document_id
from kintsugi.v1 import documents_pb2, types_pb2

if TYPE_CHECKING:
    BulkCall = grpc.aio.StreamStreamCall[documents_pb2.BulkUpsertRequest, documents_pb2.BulkUpsertResponse]

DEFAULT_BATCH = 500
DEFAULT_WINDOW = 8
DEFAULT_STALL_S = 60.0
# Chunks above this gain nothing; the server's bound is limits.MAX_BATCH_BYTES.
TARGET_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """How a bulk upsert is sent. `stall_s` is the longest time without an answered chunk."""

    collection: str
    acknowledgement: types_pb2.Acknowledgement.ValueType
    durable_replicas: int
    request_id: str
    batch: int = DEFAULT_BATCH
    window: int = DEFAULT_WINDOW
    stall_s: float = DEFAULT_STALL_S


@dataclass(slots=True)
class Chunk:
    """Some items of the call: `places` are theirs in it. `refused` stood between them and cannot be sent."""

    places: list[int]
    request: documents_pb2.UpsertRequest
    refused: list[UnappliedItem]
    attempts: int = 0


def cut(items: Items, vectors: Mapping[str, FloatArray], plan: BulkPlan) -> Iterator[Chunk]:
    """Cuts the input into chunks of at most `plan.batch` items and about TARGET_CHUNK_BYTES. Lazy: one chunk at a time.
    A chunk may be empty when none of its items can be sent."""
    vector_bytes = sum(matrix.shape[1] * matrix.dtype.itemsize for matrix in vectors.values())
    number = 0
    chunk = _empty_chunk(plan, number)
    size = 0
    for i in range(len(items.ids)):
        try:
            document = items.pack(i)
        except InvalidArgument as error:
            chunk.refused.append(UnappliedItem(i, document_id(items.ids[i]), Outcome.REFUSED, error.message))
            continue
        item_bytes = document.ByteSize() + vector_bytes
        if chunk.places and (len(chunk.places) == plan.batch or size + item_bytes > TARGET_CHUNK_BYTES):
            yield _with_vectors(chunk, vectors)
            number += 1
            chunk, size = _empty_chunk(plan, number), 0
        chunk.places.append(i)
        chunk.request.documents.append(document)
        size += item_bytes
    if chunk.places or chunk.refused:
        yield _with_vectors(chunk, vectors)


def _empty_chunk(plan: BulkPlan, number: int) -> Chunk:
    request = documents_pb2.UpsertRequest(
        collection=plan.collection,
        acknowledgement=plan.acknowledgement,
        durable_replicas=plan.durable_replicas,
        request_id=f"{plan.request_id}-{number}",
    )
    return Chunk([], request, [])


def _with_vectors(chunk: Chunk, vectors: Mapping[str, FloatArray]) -> Chunk:
    rows = {name: matrix[chunk.places] for name, matrix in vectors.items()}
    chunk.request.vectors.extend(arrays.pack_model_vectors(rows))
    return chunk


class BulkUpload:
    """One bulk upsert, from its first chunk to its result. Use once."""

    def __init__(
        self,
        connection: Connection,
        items: Items,
        vectors: Mapping[str, FloatArray],
        plan: BulkPlan,
        advance: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._clock = connection.clock
        self._plan = plan
        self._advance = advance
        self._fresh = cut(items, vectors, plan)
        self._again: deque[Chunk] = deque()
        self._broken = 0
        # Why items of the last chunk that was not settled were not written.
        self.problem = ""
        self._last_progress = self._clock.now()
        self._started = self._last_progress
        self._result = _Collected(items.ids)

    async def run(self) -> BulkResult:
        """Sends everything. Raises the failure that cannot be overcome; everything answered until then is written."""
        with self._connection.calling():
            return await self._run()

    async def _run(self) -> BulkResult:
        failures = 0
        told: KintsugiError | None = None
        while (first := self._next()) is not None:
            self._again.appendleft(first)
            answered = self._result.chunks
            stubs = self._connection.stubs()
            try:
                with grpc_errors():
                    await _Stream(self, stubs.documents.BulkUpsert()).run()
            except KintsugiError as error:
                if not (is_retryable(error) or isinstance(error, DeadlineExceeded)):
                    raise
                if self._result.chunks > answered:
                    failures, told = 0, None
                told = error if is_told(error) and is_retryable(error) else told
                delay_s = self._connection.delay_after(stubs, failures, error)
                if self.stalled_in_s() <= delay_s:
                    if told in (None, error):
                        raise
                    raise at_the_deadline(error, told, changes=True) from error
                failures += 1
                self._broken += 1
                await self._clock.sleep(delay_s)
        return self._result.finish(self._broken, self._clock.now() - self._started)

    # --- What a stream needs of the whole ---

    @property
    def window(self) -> int:
        return self._plan.window

    def _next(self) -> Chunk | None:
        """The next chunk to send: unanswered ones first. Settles those that have nothing to send."""
        if self._again:
            return self._again.popleft()
        for chunk in self._fresh:
            if chunk.places:
                return chunk
            self._settle(chunk, documents_pb2.WriteResponse())
        return None

    async def next_chunk(self) -> Chunk | None:
        """The next chunk, after its wait when its items were not settled before."""
        if self._again and (attempts := self._again[0].attempts):
            # It stays in the queue meanwhile, so that it is not lost when the stream breaks.
            await self._clock.sleep(self._connection.policy.delay_s(attempts - 1, None))
        return self._next()

    def stalled_in_s(self) -> float:
        return self._last_progress + self._plan.stall_s - self._clock.now()

    def unsent(self, chunks: Iterable[Chunk]) -> None:
        """Takes unanswered chunks back, in their order."""
        self._again.extendleft(reversed(tuple(chunks)))

    def answered(self, chunk: Chunk, response: documents_pb2.WriteResponse) -> None:
        if not answers.is_settled(response) and self.stalled_in_s() > 0:
            chunk.attempts += 1
            self.problem = next((item.message for item in response.results if item.message), self.problem)
            self._again.append(chunk)
            return
        self._settle(chunk, response)

    def _settle(self, chunk: Chunk, response: documents_pb2.WriteResponse) -> None:
        self._last_progress = self._clock.now()
        self._result.add(chunk, response)
        self._advance(len(chunk.places) + len(chunk.refused))


class _Stream:
    """One BulkUpsert call. Numbers its chunks from 0, whatever their place in the upload.

    The first chunk goes alone, and only its answer opens the window: when a call fails while something is being sent,
    grpc.aio reports an INTERNAL of its own in place of the server's status. Such a call is therefore continued, and
    the first chunk of the next one, during which nothing is sent, shows what is really the matter.
    """

    def __init__(self, upload: BulkUpload, call: "BulkCall") -> None:
        self._upload = upload
        self._call = call
        self._sent: deque[Chunk] = deque()
        self._room = asyncio.Semaphore(1)
        self._opened = False

    async def run(self) -> None:
        """Returns when nothing is left to send; raises when the stream breaks."""
        sender = asyncio.ensure_future(self._send())
        try:
            await self._receive()
            await sender
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._call.cancel()
            self._upload.unsent(self._sent)

    async def _send(self) -> None:
        try:
            await self._write_all()
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the call is over: the receiver learns why
        except Exception:
            # What was sent is still answered; then run() raises this.
            await self._call.done_writing()
            raise
        await self._call.done_writing()

    async def _write_all(self) -> None:
        number = 0
        while True:
            await self._room.acquire()
            chunk = await self._upload.next_chunk()
            if chunk is None:
                return
            self._sent.append(chunk)
            await self._call.write(documents_pb2.BulkUpsertRequest(chunk=number, upsert=chunk.request))
            number += 1

    async def _receive(self) -> None:
        while True:
            response = await self._read()
            if response is None:
                if self._sent:
                    raise Unavailable("the coordinator ended the bulk upsert early")
                return
            self._upload.answered(self._sent.popleft(), response.response)
            for _ in range(1 if self._opened else self._upload.window):
                self._room.release()
            self._opened = True

    async def _read(self) -> documents_pb2.BulkUpsertResponse | None:
        """The next answer, None at the end."""
        try:
            async with asyncio.timeout(max(0.0, self._upload.stalled_in_s())):
                response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if is_masked(error):
                raise Unavailable("the bulk upsert broke while a chunk was being sent") from error
            raise
        except TimeoutError as error:
            before = f"; before that: {self._upload.problem}" if self._upload.problem else ""
            raise DeadlineExceeded(f"no chunk of the bulk upsert was answered in time{before}") from error
        except asyncio.CancelledError as error:
            # On a stream, grpc.aio raises the server's CANCELLED like a cancellation of this task.
            task = asyncio.current_task()
            if self._call.cancelled() and task is not None and not task.cancelling():
                raise Unavailable("the coordinator cancelled the bulk upsert") from error
            raise
        return response if isinstance(response, documents_pb2.BulkUpsertResponse) else None


class _Collected:
    """The answers so far."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._versions: UintArray = np.zeros(len(ids), np.uint64)
        self._unapplied: list[UnappliedItem] = []
        self._token: tokens.Token | None = None
        self.chunks = 0

    def add(self, chunk: Chunk, response: documents_pb2.WriteResponse) -> None:
        self.chunks += 1
        self._unapplied.extend(chunk.refused)
        for index, result, outcome in zip(chunk.places, response.results, answers.outcomes(response), strict=True):
            self._versions[index] = result.version
            if outcome is not Outcome.APPLIED:
                self._unapplied.append(UnappliedItem(index, document_id(self._ids[index]), outcome, result.message))
        if response.token:
            token = tokens.decode(response.token)
            self._token = token if self._token is None else self._token.merge(token)

    def finish(self, resumed: int, elapsed_s: float) -> BulkResult:
        return BulkResult(
            items=len(self._ids),
            versions=self._versions,
            unapplied=tuple(sorted(self._unapplied, key=lambda item: item.index)),
            token=self._token.encode() if self._token is not None else b"",
            chunks=self.chunks,
            resumed=resumed,
            elapsed_s=elapsed_s,
        )
