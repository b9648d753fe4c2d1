"""Writes through the SDK and tells the oracle what became of them."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence

import numpy as np

from harness.oracle import Operation, Oracle, attributes_of, text_of, vector_of
from kintsugi import Aborted, AsyncClient, DeadlineExceeded, Outcome, ResourceExhausted, Unavailable
from kintsugi.cancelling import end
from kintsugi.ids import DocId
from kintsugi.sdk.types import WriteResult

WRITE_TIMEOUT_S = 30.0
# After these nothing is known of a write.
UNKNOWN = (Aborted, DeadlineExceeded, ResourceExhausted, Unavailable)


class Recorder:
    """One collection, its oracle, and a client."""

    def __init__(
        self, client: AsyncClient, collection: str, oracle: Oracle, timeout_s: float = WRITE_TIMEOUT_S
    ) -> None:
        self.client = client
        self.collection = collection
        self.oracle = oracle
        self._timeout_s = timeout_s

    async def put(self, ids: Sequence[DocId], **options: object) -> WriteResult | None:
        """None when nothing is known of the write."""
        operation = self.oracle.operation("put", ids)
        return await self._recorded(operation, self.client.upsert(**self._columns(operation), **self._options(options)))

    async def patch(self, ids: Sequence[DocId], **options: object) -> WriteResult | None:
        operation = self.oracle.operation("patch", ids)
        attributes = [attributes_of(operation.serial)] * len(ids)
        call = self.client.update_attributes(self.collection, list(ids), attributes, **self._options(options))
        return await self._recorded(operation, call)

    async def delete(self, ids: Sequence[DocId], **options: object) -> WriteResult | None:
        operation = self.oracle.operation("delete", ids)
        return await self._recorded(operation, self.client.delete(self.collection, list(ids), **self._options(options)))

    async def bulk(self, ids: Sequence[DocId], batch: int) -> None:
        """A streamed ingest. Each chunk of `batch` documents is a write of its own."""
        operation = self.oracle.operation("put", ids)
        chunks = [Operation("put", operation.serial, operation.ids[i : i + batch]) for i in range(0, len(ids), batch)]
        try:
            result = await self.client.bulk_upsert(
                **self._columns(operation), batch=batch, progress=False, timeout_s=self._timeout_s
            )
        except UNKNOWN:
            for chunk in chunks:
                self.oracle.lose_track(chunk, chunk.ids)
            return
        unapplied = {item.index: item for item in result.unapplied}
        for number, chunk in enumerate(chunks):
            first = number * batch
            self.oracle.settle(chunk, _chunk_result(chunk, result.versions[first : first + batch], unapplied, first))

    async def must_put(self, ids: Sequence[DocId], **options: object) -> WriteResult:
        """A put that has to be acknowledged whole."""
        result = await self.put(ids, **options)
        assert result is not None, "the write was not acknowledged"
        assert result.applied == len(ids), result.messages
        return result

    def _columns(self, operation: Operation) -> dict[str, object]:
        return {
            "collection": self.collection,
            "ids": list(operation.ids),
            "vectors": np.stack([vector_of(doc_id, operation.serial) for doc_id in operation.ids]),
            "attributes": [attributes_of(operation.serial)] * len(operation.ids),
            "texts": [text_of(operation.serial)] * len(operation.ids),
        }

    def _options(self, options: dict[str, object]) -> dict[str, object]:
        return {"timeout_s": self._timeout_s, **options}

    async def _recorded(self, operation: Operation, call) -> WriteResult | None:
        try:
            result = await call
        except UNKNOWN:
            self.oracle.lose_track(operation, operation.ids)
            return None
        self.oracle.settle(operation, result)
        return result


def _chunk_result(chunk: Operation, versions: np.ndarray, unapplied: dict, first: int) -> WriteResult:
    items = [unapplied.get(first + place) for place in range(len(chunk.ids))]
    return WriteResult(
        outcomes=tuple(Outcome.APPLIED if item is None else item.outcome for item in items),
        versions=versions,
        found=np.ones(len(items), dtype=bool),
        messages=tuple("" if item is None else item.message for item in items),
        token=b"",
        request_id="",
    )


async def ingest(recorder: Recorder, number: int, rng: random.Random, stop: asyncio.Event) -> None:
    """Streams new documents in and changes, replaces and deletes those that are there, until told to stop. Its ids,
    integers and strings, are its own."""
    mine: list[DocId] = []
    round_ = 0
    while not stop.is_set():
        first = number * 1_000_000 + round_ * 60
        fresh: list[DocId] = [i if i % 3 else f"text-{i}" for i in range(first, first + 60)]
        await recorder.bulk(fresh, batch=20)
        mine += fresh
        for _ in range(3):
            await recorder.put(rng.sample(mine, 8))
            await recorder.patch(rng.sample(mine, 8))
            await recorder.delete(rng.sample(mine, 6))
        round_ += 1


@contextlib.asynccontextmanager
async def ingesting(recorders: Sequence[Recorder], rng: random.Random) -> AsyncIterator[None]:
    """Ingests through all recorders at once; a defect in one of them fails the block."""
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(ingest(recorder, number, random.Random(rng.random()), stop))
        for number, recorder in enumerate(recorders)
    ]
    try:
        yield
        stop.set()
        await asyncio.gather(*tasks)
    finally:
        await end(tasks)
