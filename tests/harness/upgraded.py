"""A collection that is searched by clients of two models, rewritten and re-embedded at once.

Every document's text is `<id>-<serial>`, and both models are fixed functions of the text: whatever a replica holds can be
checked, and a vector that was computed from an older text is recognised.
"""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import numpy as np

from kintsugi import AsyncClient, KintsugiError, Model
from kintsugi.cancelling import end

OLD, NEW = 16, 12
K = 5
WRITE_TIMEOUT_S = 30.0
EMBEDDING = """
import numpy as np

TURN = np.random.default_rng(0).standard_normal((16, 12))


def old_vector(text):
    return np.random.default_rng(list(text.encode())).standard_normal(16)


def embed(texts):
    return np.array([old_vector(text) @ TURN for text in texts], dtype=np.float32)


def embed_old(texts):
    return np.array([old_vector(text) for text in texts], dtype=np.float32)
"""
_scope: dict = {}
exec(EMBEDDING, _scope)  # the worker's own code, so that both embed alike
EMBED = {"old": _scope["embed_old"], "new": _scope["embed"]}


def text_of(doc_id: int, serial: int) -> str:
    return f"{doc_id}-{serial}"


async def command(address: str, folder: Path, *arguments: object) -> asyncio.subprocess.Process:
    """A started `kintsugi upgrade` in a folder that has the embedding."""
    (folder / "embedding.py").write_text(EMBEDDING)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kintsugi.cli", "upgrade", *map(str, arguments),
        env={**os.environ, "KINTSUGI_ADDRESS": address}, cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


async def done(process: asyncio.subprocess.Process, timeout_s: float = 120.0) -> None:
    _, told = await asyncio.wait_for(process.communicate(), timeout_s)
    assert process.returncode == 0, told.decode()


async def planned(address: str, folder: Path, collection: str, *options: object) -> None:
    """Plans an upgrade from pairs of texts that the collection does not hold."""
    sample = [text_of(number, 10**6) for number in range(600)]
    np.savez(folder / "pairs.npz", old_documents=EMBED["old"](sample), new_documents=EMBED["new"](sample))
    plan = ("plan", collection, "--model", "new", "--dimension", NEW, "--sample", "pairs.npz")
    await done(await command(address, folder, *plan, *options))


async def created(client: AsyncClient, collection: str, count: int, **options: object) -> dict[int, int]:
    """A collection of the old model with documents of serial 0. Returns what is there."""
    await client.create_collection(collection, Model("old", OLD), **options)
    texts = [text_of(number, 0) for number in range(count)]
    result = await client.bulk_upsert(
        collection, range(count), EMBED["old"](texts), texts=texts, acknowledgement="searchable", progress=False
    )
    assert result.applied == count
    return dict.fromkeys(range(count), 0)


class Searchers:
    """`async with Searchers(...)`: eight of them search for documents by one model's vectors without pause. What fails, or is
    partial, or short of hits, is in `failures`."""

    def __init__(self, addresses: Sequence[str], collection: str, model: str, ids: Iterable[int]) -> None:
        self._client = AsyncClient(list(addresses))
        self._collection = collection
        self._model = model
        self._queries = EMBED[model]([text_of(doc_id, 0) for doc_id in ids])
        self._tasks: list[asyncio.Task[None]] = []
        self.answered = 0
        self.failures: list[str] = []

    async def __aenter__(self) -> "Searchers":
        self._tasks = [asyncio.create_task(self._search(number)) for number in range(8)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._tasks)
        await self._client.close()
        assert not self.failures, f"{len(self.failures)} of {self.answered} searches: {self.failures[:3]}"

    async def _search(self, number: int) -> None:
        rng = random.Random(number)
        while True:
            query = self._queries[rng.randrange(len(self._queries))]
            try:
                result = await self._client.search(self._collection, query, k=K, model=self._model)
            except KintsugiError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                continue
            if not result.coverage.complete or len(result.hits) != K:
                self.failures.append(f"partial: {len(result.hits)} hits, {result.coverage}")
            self.answered += 1


class Writer:
    """Puts, rewrites and deletes documents of its own, embedded by `model`; every call must be acknowledged. `there` is what
    must be there, by id the serial."""

    def __init__(self, client: AsyncClient, collection: str, number: int, model: str) -> None:
        self._client = client
        self._collection = collection
        self._rng = random.Random(number)
        self._next = (number + 1) * 1_000_000
        self._serial = 0
        self.model = model
        self.there: dict[int, int] = {}
        self.deleted: set[int] = set()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.is_idle = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.is_idle.set()
            await self.may_write.wait()
            self.is_idle.clear()
            await self._put(range(self._next, self._next + 6))
            self._next += 6
            await self._put(self._some(4))
            await self._delete(self._some(2))
            await asyncio.sleep(0.05)

    async def pause(self) -> None:
        self.may_write.clear()
        await self.is_idle.wait()

    def _some(self, count: int) -> list[int]:
        return self._rng.sample(list(self.there), min(count, len(self.there)))

    async def _put(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        self._serial += 1
        texts = [text_of(doc_id, self._serial) for doc_id in ids]
        result = await self._client.upsert(
            self._collection,
            list(ids),
            {self.model: EMBED[self.model](texts)},
            texts=texts,
            timeout_s=WRITE_TIMEOUT_S,
        )
        assert result.applied == len(ids), result.messages
        self.there |= dict.fromkeys(ids, self._serial)

    async def _delete(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        result = await self._client.delete(self._collection, list(ids), timeout_s=WRITE_TIMEOUT_S)
        assert result.applied == len(ids), result.messages
        for doc_id in ids:
            del self.there[doc_id]
        self.deleted |= set(ids)


@contextlib.asynccontextmanager
async def writing(writers: Sequence[Writer]) -> AsyncIterator[None]:
    """Writes go on inside the block; one that fails, fails it."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(writer.run(stop)) for writer in writers]
    try:
        yield
        stop.set()
        await asyncio.gather(*tasks)
    finally:
        await end(tasks)


async def holds_exactly(client: AsyncClient, collection: str, there: dict[int, int], models: set[str] | None) -> None:
    """The collection has these documents in these texts, each with vectors of exactly these models (None: of any), every one
    computed from its text."""
    found = {document.id: document async for document in client.scroll(collection, limit=500, vectors=True, text=True)}
    assert set(found) == set(there)
    for doc_id, document in found.items():
        assert document.text == text_of(doc_id, there[doc_id])
        assert models is None or set(document.vectors) == models, f"{doc_id} has vectors of {set(document.vectors)}"
        for model, vector in document.vectors.items():
            expected = EMBED[model]([document.text])[0]
            assert np.allclose(vector, expected, rtol=1e-5), f"{doc_id} has a stale vector of {model}"
