"""Hands out documents of a replica for re-embedding: a queue per model, over the stored documents.

Guarantees: an answer stays below the replica's part of a message, and what does not fit comes next; each document is told in one
state, with the version that its text has. The queues and what they know of searches end with the replica's files.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi import ids, limits
from kintsugi.ann.vector_index import Rows
from kintsugi.columns import pack_id, unpack_encoded
from kintsugi.errors import StalePlan
from kintsugi.internal.v1 import shard_pb2
from kintsugi.registry.records import Collection, View
from kintsugi.v1 import upgrades_pb2
from shard.backfill import BackfillQueue, Unsure
from shard.heat import Heat, Hits, Traffic
from shard.reader import Fields, HitColumns
from shard.search_call import SearchCall, ShardHits
from shard.storage import Storage

_CONTENT: Final = Fields(attributes=True, text=True)


class StoredLacking:
    """The documents that have no vector of a model."""

    def __init__(self, storage: Storage, model: int) -> None:
        self._storage = storage
        self._model = model

    def among(self, rows: Rows) -> Rows:
        with self._storage.reading() as reader:
            return rows[reader.rows_lacking(self._model).contains(rows)]

    def after(self, row: int, limit: int) -> Rows:
        with self._storage.reading() as reader:
            lacking = reader.rows_lacking(self._model).rows()
        return lacking[np.searchsorted(lacking, np.uint64(row), side="right") :][:limit]


@dataclass(frozen=True, slots=True)
class _Searched:
    """What is known of the searches of a model."""

    heat: Heat
    traffic: Traffic


class Backfill:
    """Of one replica, as long as its files are open. Any thread may call. `unsure_of`: the predictor of a model."""

    def __init__(
        self,
        storage: Storage,
        *,
        unsure_of: Callable[[int], Unsure] = lambda _model: lambda _rows: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._unsure_of = unsure_of
        self._clock = clock
        self._making = threading.Lock()
        self._searched: dict[int, _Searched] = {}
        self._queues: dict[int, BackfillQueue] = {}

    def observe(self, model: int, call: SearchCall, hits: ShardHits) -> None:
        """Told every search of a model. Quick."""
        if not call.is_live:
            return
        searched = self._searched_of(model)
        searched.heat.observe(hits.lacking)
        found = len(hits.ids)
        searched.traffic.observe(found - int(hits.projected.sum()), found)

    def traffic(self, model: int) -> Hits:
        """What recent searches of a model found."""
        return self._searched_of(model).traffic.recent()

    def next(
        self, collection: Collection, view: View | None, request: shard_pb2.NextShardDocumentsRequest
    ) -> shard_pb2.NextShardDocumentsResponse:
        """Blocks. StalePlan when the registry, as this server knows it, does not have the model."""
        model = collection.model(request.model)
        if model is None:
            revision = view.snapshot.revision if view else 0
            raise StalePlan(f"collection {collection.name} has no model {request.model} here yet", revision=revision)
        remaining = self._storage.documents - self._storage.documents_with_vector(model.number)
        documents: list[upgrades_pb2.DocumentToEmbed] = []
        if request.limit:
            queue = self._queue(model.number)
            rows = queue.next(request.limit, request.lease_s, self._rows_of(request))
            content = self._storage.hits(rows, _CONTENT)
            documents = _cut(content, limits.MAX_PAGE_BYTES // collection.shards)
            queue.give_back(content.rows[len(documents) :])
        return shard_pb2.NextShardDocumentsResponse(documents=documents, remaining=max(0, remaining))

    def _rows_of(self, request: shard_pb2.NextShardDocumentsRequest) -> Sequence[int]:
        found = self._storage.get(unpack_encoded(request.first, "first"))
        return [document.row for document in found if document is not None]

    def _searched_of(self, model: int) -> "_Searched":
        with self._making:
            if model not in self._searched:
                self._searched[model] = _Searched(Heat(clock=self._clock), Traffic(self._clock))
            return self._searched[model]

    def _queue(self, model: int) -> BackfillQueue:
        heat = self._searched_of(model).heat
        with self._making:
            if model not in self._queues:
                lacking = StoredLacking(self._storage, model)
                self._queues[model] = BackfillQueue(lacking, heat, unsure=self._unsure_of(model), clock=self._clock)
            return self._queues[model]


def _cut(content: HitColumns, max_bytes: int) -> list[upgrades_pb2.DocumentToEmbed]:
    """The first documents, as many as fit; at least one."""
    documents: list[upgrades_pb2.DocumentToEmbed] = []
    size = 0
    columns = zip(content.ids, content.versions.tolist(), content.texts, content.attributes, strict=True)
    for encoded, version, text, attributes in columns:
        size += len(encoded) + len(text.encode()) + len(attributes.encode())
        if documents and size > max_bytes:
            break
        documents.append(
            upgrades_pb2.DocumentToEmbed(
                id=pack_id(ids.decode(encoded)), version=version, text=text, attributes=attributes
            )
        )
    return documents
