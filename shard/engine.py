"""The open files of a replica: its database, the index that follows it, and the thread that searches.

One object to open, ask and close, so that nobody sees half of them. Knows nothing of the log or of phases.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from kintsugi import failpoints
from kintsugi.log.read import LogEntry
from kintsugi.position import Position
from kintsugi.registry.records import Collection, Model
from kintsugi.telemetry import metric_names, metrics
from shard.checkpoint import IndexedModel
from shard.folders import ReplicaFolder
from shard.indexer import Indexer, IndexerSettings
from shard.rebuilder import Outside, Wanted
from shard.recall_samples import RecallSamples, samples_per_window
from shard.searcher import Searcher, SearcherSettings
from shard.seq_waiters import SeqWaiters
from shard.settings import ShardSettings
from shard.storage import Storage, StorageEvent

# Address space only: the database grows as it needs, up to the quota.
MAP_SIZE = 2**43

_APPLY_SECONDS = metrics.histogram(metric_names.APPLY_SECONDS)
_REPLAYED = metrics.counter(metric_names.REPLAYED_RECORDS)


@dataclass(slots=True)
class Progress:
    """When something was last applied, in time.monotonic()."""

    applied_at: float = field(default_factory=time.monotonic)


def wanted_by(collection: Collection) -> Wanted:
    """The encoding that a collection asks its replicas for."""
    return Wanted(collection.encoding, collection.encoding_requests)


@dataclass(frozen=True, slots=True)
class Engine:
    folder: ReplicaFolder
    storage: Storage
    model: Model
    indexer: Indexer
    searcher: Searcher
    durable: SeqWaiters
    settings: ShardSettings
    outside: Outside
    recall: RecallSamples
    progress: Progress = field(default_factory=Progress)
    # Ends long work on the files, which close() would wait for.
    closing: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def open(
        cls,
        collection: Collection,
        folder: ReplicaFolder,
        settings: ShardSettings,
        outside: Outside,
        observe: Callable[[StorageEvent], None],
    ) -> "Engine":
        """Opens or creates the files; blocks. The index is then on its way, see reached(). `observe` is called after
        each commit of the database, before anybody hears of it."""
        storage = Storage.open(
            folder.database,
            stored=collection.stored,
            models={model.number: model.dimension for model in collection.models},
            map_size=MAP_SIZE,
            max_bytes=settings.max_replica_bytes,
            sync=settings.sync_writes,
            observe=observe,
        )
        with ExitStack() as undo:
            undo.callback(storage.close)  # LMDB would refuse to open it again in this process
            engine = cls._around(storage, collection, folder, settings, outside)
            undo.pop_all()
        return engine

    @classmethod
    def _around(
        cls,
        storage: Storage,
        collection: Collection,
        folder: ReplicaFolder,
        settings: ShardSettings,
        outside: Outside,
    ) -> "Engine":
        model = collection.model("")
        assert model is not None, "a collection serves one of its models"
        indexed = IndexedModel(model.number, model.dimension, model.metric)
        every = IndexerSettings(
            checkpoint_changes=settings.checkpoint_every_changes, checkpoint_s=settings.checkpoint_every_s
        )
        indexer = Indexer(
            storage,
            indexed,
            folder.index / str(model.number),
            wanted=wanted_by(collection),
            settings=every,
            outside=outside,
        )
        recall = RecallSamples(samples_per_window(settings.recall_samples_per_minute))
        waiting = SearcherSettings(max_waiting_queries=settings.max_queued_searches)
        searcher = Searcher(storage, indexer, settings=waiting, observe=recall.observe)
        indexer.start()
        searcher.start()
        durable = SeqWaiters()
        durable.reached(storage.position.seq)
        return cls(folder, storage, model, indexer, searcher, durable, settings, outside, recall)

    @property
    def position(self) -> Position:
        """What is synced to disk."""
        return self.storage.position

    @property
    def searchable_seq(self) -> int:
        return self.indexer.searchable.seq

    @property
    def documents(self) -> int:
        return self.storage.documents

    @property
    def failure(self) -> Exception | None:
        """Why the index no longer follows; None while it does."""
        return self.indexer.failure

    def apply(self, entries: Sequence[LogEntry]) -> None:
        """Applies records in one synced transaction, then tells those who wait. Blocks; for the writer's thread."""
        failpoints.hit("replay.before_commit")
        started = time.perf_counter()
        position = self.storage.apply(entries)
        _APPLY_SECONDS.observe(time.perf_counter() - started)
        _REPLAYED.inc(len(entries))
        self.progress.applied_at = time.monotonic()
        failpoints.hit("replay.after_commit")
        self.durable.reached(position.seq)
        self.indexer.notify()

    async def reached(self, seq: int, timeout_s: float, *, searchable: bool) -> bool:
        """Whether the disk, or the serving index, holds `seq` in time. Unavailable when it never will."""
        waiting = self.indexer.wait_searchable(seq) if searchable else self.durable.wait(seq)
        try:
            await asyncio.wait_for(waiting, timeout_s)
        except TimeoutError:
            return False
        return True

    def trim(self, tail_below: int) -> None:
        """Lets go of the tail that no replica needs, and of the journal that neither the index nor anybody who asks
        for outcomes does."""
        keep_from = max(self.position.seq - self.settings.keep_journal_records, 0)
        self.storage.trim(min(self.indexer.journal_needed_from, keep_from), tail_below)

    def close(self) -> None:
        """Saves a checkpoint and closes everything, whatever of it fails. Blocks."""
        self.closing.set()
        with ExitStack() as closing:
            closing.callback(self.storage.close)
            closing.callback(self.durable.fail, "the replica is closed", "REPLICA_CLOSED")
            closing.callback(self.indexer.close)
            closing.callback(self.searcher.close)
