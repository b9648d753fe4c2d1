"""What a shard server tells at a scrape, beyond what every process tells: how each replica does."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kintsugi.errors import KintsugiError
from kintsugi.log.positions import LogPositions
from kintsugi.telemetry import metric_names as names
from kintsugi.telemetry.metrics import Sample, one_of
from shard.checkpoint import IndexVersion
from shard.engine import Engine
from shard.host import Host
from shard.recall_samples import VersionRecall
from shard.recovery import Guardian
from shard.replica import Replica, ReplicaPhase
from shard.upgrade_metrics import of_upgrade


@dataclass(frozen=True, slots=True)
class Observing:
    """Asked from another thread than the event loop's: a replica may close while it is looked at, and is then left out."""

    host: Host
    guardian: Guardian
    positions: LogPositions

    def samples(self) -> Iterable[Sample]:
        yield Sample(names.RECOVERIES_WAITING, len(self.guardian.waiting))
        for replica in self.host.replicas:
            labels = (replica.collection.name, str(replica.ref.shard))
            yield from one_of(names.REPLICA_PHASE, ReplicaPhase, replica.phase, *labels)
            try:
                yield from self._of_engine(replica.engine, replica, labels)
            except (KintsugiError, OSError):  # closed, which its phase says
                continue

    def _of_engine(self, engine: Engine, replica: Replica, labels: tuple[str, ...]) -> list[Sample]:
        durable, index = engine.position.seq, engine.serving
        found = [
            Sample(names.DURABLE_SEQ, durable, labels),
            Sample(names.SEARCHABLE_SEQ, engine.searchable_seq, labels),
            Sample(names.DOCUMENTS, engine.documents, labels),
            Sample(names.DISK_BYTES, engine.storage.disk_bytes, labels),
            Sample(names.COLUMN_BYTES, engine.storage.column_bytes, labels),
            Sample(names.APPLIED_AGO, max(0.0, time.monotonic() - engine.progress.applied_at), labels),
            Sample(names.SEARCH_WAITING, sum(one.searcher.waiting_queries for one in engine.models.values()), labels),
            Sample(names.INDEX_BUILDING, any(one.indexer.is_building for one in engine.models.values()), labels),
            Sample(names.CHECKPOINT_SEQ, index.indexer.checkpoint_seq, labels),
        ]
        log = self.positions.last_reported.get((replica.ref.collection_uid, replica.ref.shard))
        if log is not None:
            found += [
                Sample(names.REPLAY_LAG, max(0, log.head_seq - durable), labels),
                Sample(names.LOG_BYTES, log.kept_bytes, labels),
            ]
        if (serving := index.indexer.serving) is not None:
            found += [
                Sample(names.INDEX_VERSION, serving.number, (*labels, serving.encoding)),
                Sample(names.INDEX_VECTORS, len(serving.index), labels),
                Sample(names.INDEX_TOMBSTONES, serving.index.tombstones, labels),
                Sample(names.INDEX_MEMORY_BYTES, serving.index.memory_bytes, labels),
                Sample(names.INDEX_MAPPED_BYTES, serving.index.mapped_bytes, labels),
            ]
        for one in engine.models.values():
            if (version := one.indexer.serving) is not None:
                found += _of_recall(one.recall.recall, version, (*labels, one.model.name))
        return [*found, *of_upgrade(replica.upgrade, engine, labels)]


def _of_recall(known: VersionRecall, serving: IndexVersion, labels: tuple[str, ...]) -> Iterator[Sample]:
    """Of the version that serves: what its predecessor found says nothing of it."""
    if known.index_version != serving.number:
        return
    for kind, live in (("plain", known.plain), ("filtered", known.filtered)):
        if live is not None:
            named = (*labels, str(serving.number), serving.encoding, kind)
            yield Sample(names.RECALL, live.recall, named)
            yield Sample(names.RECALL_QUERIES, live.queries, named)
