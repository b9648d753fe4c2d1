"""A replica's storage as the index tests use it, with a float64 oracle beside it."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kintsugi.ann.spec import EncodingSpec
from kintsugi.filters.matching import group_value, matches
from kintsugi.filters.tree import Filter
from kintsugi.ids import encode
from kintsugi.log.chain import extend
from kintsugi.log.read import LogEntry
from kintsugi.log.records import delete, patch, put
from kintsugi.metrics import Metric, StoredType, scores
from shard.checkpoint import IndexedModel
from shard.indexer import Indexer, IndexerSettings
from shard.rebuilder import Outside, Wanted
from shard.search_call import SearchCall, ShardHits
from shard.searcher import Searcher
from shard.storage import Storage

MODEL = 1


class IndexedReplica:
    """Real storage, written to without a log, and what it should hold."""

    def __init__(self, folder: Path, dimension: int, metric: Metric) -> None:
        self.folder = folder
        self.model = IndexedModel(MODEL, dimension, metric)
        self.storage = Storage.open(
            folder / "lmdb",
            stored=StoredType.F32,
            models={MODEL: dimension},
            map_size=2**30,
            max_bytes=2**30,
            sync=False,
        )
        self.truth: dict[int | str, np.ndarray] = {}
        self.attributes: dict[int | str, dict[str, object]] = {}
        self.events: list[tuple[int, str, str]] = []

    def put(
        self, documents: dict[int | str, np.ndarray], attributes: dict[int | str, dict[str, object]] | None = None
    ) -> int:
        """Writes documents in one transaction and returns the last sequence number."""
        self.truth |= {doc_id: np.asarray(vector, dtype=np.float32) for doc_id, vector in documents.items()}
        self.attributes |= {doc_id: (attributes or {}).get(doc_id, {}) for doc_id in documents}
        return self._apply(
            [
                put(doc_id, {MODEL: self.truth[doc_id].tobytes()}, attributes=_json(self.attributes[doc_id]))
                for doc_id in documents
            ]
        )

    def patch(self, attributes: dict[int | str, dict[str, object]]) -> int:
        """Changes the attributes of documents."""
        self.attributes |= attributes
        return self._apply([patch(doc_id, _json(changed)) for doc_id, changed in attributes.items()])

    def delete(self, ids: list[int | str]) -> int:
        for doc_id in ids:
            self.truth.pop(doc_id, None)
            self.attributes.pop(doc_id, None)
        return self._apply([delete(doc_id) for doc_id in ids])

    def _apply(self, payloads: list[bytes]) -> int:
        position = self.storage.position
        entries, digest = [], position.digest
        for seq, payload in enumerate(payloads, start=position.seq + 1):
            digest = extend(digest, seq, payload)
            entries.append(LogEntry(1, seq, payload, digest))
        return self.storage.apply(entries).seq

    def oracle(self, query: np.ndarray, k: int, condition: Filter | None = None) -> list[tuple[bytes, float]]:
        """The k best by float64 score, then id, of those that fulfil a filter."""
        return [(encode(doc_id), score) for doc_id, score in self.ranking(query, condition)[:k]]

    def ranking(self, query: np.ndarray, condition: Filter | None = None) -> list[tuple[int | str, float]]:
        """All ids and scores of the documents that fulfil a filter, best first."""
        ids = [one for one in self.truth if condition is None or matches(condition, self.attributes[one])]
        if not ids:
            return []
        values = scores(self.model.metric, query, np.stack([self.truth[one] for one in ids]))
        return sorted(zip(ids, values.tolist(), strict=True), key=lambda hit: (-hit[1], encode(hit[0])))

    def grouped(
        self, query: np.ndarray, k: int, attribute: str, size: int, condition: Filter | None = None
    ) -> list[tuple[bytes, float, object]]:
        """The `size` best documents of each of the k best groups, best first, with their groups."""
        groups: dict[tuple[type, object], int] = {}
        found = []
        for doc_id, score in self.ranking(query, condition):
            value = group_value(self.attributes[doc_id], attribute)
            key = (type(value), value)
            if value is not None and (key in groups or len(groups) < k) and groups.get(key, 0) < size:
                groups[key] = groups.get(key, 0) + 1
                found.append((encode(doc_id), score, value))
        return found

    def indexer(self, settings: IndexerSettings | None = None, **options) -> Indexer:
        def record(number, encoding, event):
            self.events.append((number, encoding, str(event)))

        options.setdefault("outside", Outside(record))
        if isinstance(wanted := options.get("wanted"), EncodingSpec):
            options["wanted"] = Wanted(wanted)
        return Indexer(self.storage, self.model, self.folder / "index", settings=settings, **options)

    @contextlib.asynccontextmanager
    async def serving(self, settings: IndexerSettings | None = None, **options):
        """A started indexer, caught up, with a started searcher."""
        indexer = self.indexer(settings, **options)
        searcher = Searcher(self.storage, indexer)
        indexer.start()
        searcher.start()
        try:
            await self.caught_up(indexer)
            yield indexer, searcher
        finally:
            await asyncio.to_thread(searcher.close)
            await asyncio.to_thread(indexer.close)

    async def caught_up(self, indexer: Indexer) -> None:
        indexer.notify()
        await asyncio.wait_for(indexer.wait_searchable(self.storage.position.seq), 60)


def _json(attributes: dict[str, object]) -> bytes:
    return json.dumps(attributes).encode() if attributes else b""


def hits_of(found: ShardHits, place: int) -> list[tuple[bytes, float]]:
    """The hits of one query as pairs."""
    start = sum(found.counts[:place])
    end = start + found.counts[place]
    return list(zip(found.ids[start:end], found.scores[start:end].tolist(), strict=True))


@pytest.fixture
def open_replica(tmp_path):
    """Opens replicas of any dimension and metric."""
    opened: list[IndexedReplica] = []

    def make(dimension: int = 8, metric: Metric = Metric.COSINE) -> IndexedReplica:
        replica = IndexedReplica(tmp_path / f"replica-{len(opened)}", dimension, metric)
        opened.append(replica)
        return replica

    yield make
    for replica in opened:
        replica.storage.close()


@pytest.fixture
def pairs_of() -> Callable[[ShardHits, int], list[tuple[bytes, float]]]:
    """hits_of, for test modules, which cannot import from here."""
    return hits_of


@pytest.fixture
def search_call() -> type[SearchCall]:
    return SearchCall


@pytest.fixture
def eventually():
    """Waits on a condition with a deadline."""

    async def wait(condition: Callable[[], object], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - conditions of other threads, without events
                await asyncio.sleep(0.002)

    return wait
