"""A collection whose true best hits are known at any time, searched, written to and encoded anew at once.

Its documents come in two halves, in two cones that no search sees at once. The *stable* half is written once; every query
is beside one of it, so that its true best are fixed and the recall of each single search can be told without a second,
exact one. The *restless* half is on the far side: it is put, replaced and deleted without pause by one writer, who knows
what must be there in the end.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np

from harness.searching import NO_RETRIES
from harness.waiting import until
from kintsugi import AsyncClient, KintsugiError, Model
from kintsugi.cancelling import end

DIMENSION = 64
K = 10
STABLE = 1500
QUERIES = 64
FIRST_RESTLESS = 1_000_000
WRITE_TIMEOUT_S = 30.0
# Vectors have about so many degrees of freedom, as embeddings have: signs alone could not rank white noise.
_RANK = 16
_APART = 6.0
_SEARCHES_PER_ROUND = 100


def _basis() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(5).normal(size=(DIMENSION, _RANK)))[0].T


_BASIS = _basis()
_AXIS = np.random.default_rng(6).normal(size=DIMENSION)
_AXIS *= _APART / np.linalg.norm(_AXIS)


def _cloud(count: int, seed: Sequence[int], side: float) -> np.ndarray:
    rng = np.random.default_rng(list(seed))
    latent = rng.normal(size=(count, _RANK)) @ _BASIS * np.sqrt(DIMENSION / _RANK)
    return (latent + 0.3 * rng.normal(size=(count, DIMENSION)) + side * _AXIS).astype(np.float32)


def restless_vector(doc_id: int, serial: int) -> np.ndarray:
    return _cloud(1, (doc_id, serial), -1.0)[0]


class Known:
    """The stable half, the queries beside it and their true best by cosine."""

    def __init__(self, count: int = STABLE) -> None:
        self.vectors = _cloud(count, (1,), 1.0)
        rng = np.random.default_rng(2)
        beside = rng.choice(count, QUERIES, replace=False)
        self.queries = self.vectors[beside] + 0.3 * rng.normal(size=(QUERIES, DIMENSION)).astype(np.float32)
        unit = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        order = np.argsort(-(self.queries @ unit.T), axis=1)[:, :K]
        self.best = [frozenset(row.tolist()) for row in order]

    async def create(self, client: AsyncClient, collection: str, encoding: str, **options: object) -> None:
        model = Model("m", DIMENSION)
        await client.create_collection(collection, model, encoding=encoding, **options)
        result = await client.bulk_upsert(collection, range(len(self.vectors)), self.vectors, progress=False)
        assert result.applied == len(self.vectors)

    def recall(self, query: int, ids: Sequence[object]) -> float:
        return len(self.best[query].intersection(ids)) / K


class Searchers:
    """`async with Searchers(...)`: sixteen of them search without pause and without a second try; a failed or partial
    answer ends the block. `recalls` has the recall of every search so far, in the order of their answers."""

    def __init__(self, addresses: list[str], collection: str, known: Known, workers: int = 16) -> None:
        self._client = AsyncClient(addresses, retry=NO_RETRIES)
        self._collection = collection
        self._known = known
        self._workers = workers
        self._tasks: list[asyncio.Task[None]] = []
        self.recalls: list[float] = []
        self.failures: list[str] = []

    async def __aenter__(self) -> "Searchers":
        self._tasks = [asyncio.create_task(self._search(number)) for number in range(self._workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._tasks)
        await self._client.close()

    async def _search(self, number: int) -> None:
        rng = random.Random(number)
        while True:
            query = rng.randrange(QUERIES)
            try:
                result = await self._client.search(self._collection, self._known.queries[query], k=K)
            except KintsugiError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                continue
            if not result.coverage.complete or len(result.hits) != K:
                self.failures.append(f"partial: {len(result.hits)} hits, {result.coverage}")
            self.recalls.append(self._known.recall(query, [hit.id for hit in result.hits]))


class Writer:
    """Puts, replaces and deletes the restless half; every call must be acknowledged. `there` is what must be there.

    `searched` counts searches, of which there are a few between two rounds of writing: a graph in which most vectors are
    replaced within seconds finds less, whatever its encoding, and that is not what is measured here."""

    def __init__(
        self, client: AsyncClient, collection: str, batch: int = 20, searched: Callable[[], int] | None = None
    ) -> None:
        self._client = client
        self._collection = collection
        self._batch = batch
        self._searched = searched
        self._rng = random.Random(3)
        self._serial = 0
        self._next = FIRST_RESTLESS
        self.there: dict[int, int] = {}
        self.writes = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._put(range(self._next, self._next + self._batch))
            self._next += self._batch
            await self._put(self._some())
            await self._delete(self._some())
            self.writes += 3
            if self._searched is not None:
                target = self._searched() + _SEARCHES_PER_ROUND
                await until(lambda: stop.is_set() or self._searched() >= target, "searches between writes")  # noqa: B023 -- awaited here

    def _some(self) -> list[int]:
        return self._rng.sample(list(self.there), min(self._batch // 2, len(self.there)))

    async def _put(self, ids: Sequence[int]) -> None:
        self._serial += 1
        vectors = np.stack([restless_vector(doc_id, self._serial) for doc_id in ids])
        result = await self._client.upsert(
            self._collection, list(ids), vectors, texts=[str(self._serial)] * len(ids), timeout_s=WRITE_TIMEOUT_S
        )
        assert result.applied == len(ids), result.messages
        self.there |= dict.fromkeys(ids, self._serial)

    async def _delete(self, ids: Sequence[int]) -> None:
        result = await self._client.delete(self._collection, list(ids), timeout_s=WRITE_TIMEOUT_S)
        assert result.applied == len(ids), result.messages
        for doc_id in ids:
            del self.there[doc_id]


@contextlib.asynccontextmanager
async def writing(writer: Writer) -> AsyncIterator[None]:
    """Writes go on inside the block; one that fails, fails it."""
    stop = asyncio.Event()
    task = asyncio.create_task(writer.run(stop))
    try:
        yield
        stop.set()
        await task
    finally:
        await end((task,))


async def content(client: AsyncClient, collection: str) -> dict[int, np.ndarray]:
    """The vectors of all documents, by id."""
    found = [document async for document in client.scroll(collection, limit=500, vectors=True)]
    assert len({document.id for document in found}) == len(found)
    return {document.id: next(iter(document.vectors.values())) for document in found}


async def nothing_is_lost(client: AsyncClient, collection: str, known: Known, writer: Writer) -> None:
    """The collection holds exactly the stable half and what the writer left there."""
    found = await content(client, collection)
    assert set(found) == set(range(len(known.vectors))) | set(writer.there)
    for doc_id, vector in found.items():
        expected = known.vectors[doc_id] if doc_id < FIRST_RESTLESS else restless_vector(doc_id, writer.there[doc_id])
        assert np.array_equal(vector, expected), f"{doc_id} has another vector than was acknowledged last"
