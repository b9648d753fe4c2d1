"""The open files of a replica: its database, and per model the index that follows it and the thread that searches.

One object to open, ask and close, so that nobody sees half of them. Knows nothing of the log or of phases.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from kintsugi import failpoints
from kintsugi.cancelling import end
from kintsugi.durable import remove_folder
from kintsugi.errors import Unavailable
from kintsugi.log.read import LogEntry
from kintsugi.position import Position
from kintsugi.registry.records import Collection, Model
from kintsugi.registry.upgrades import indexed_models
from kintsugi.telemetry import metric_names, metrics
from shard.backfill import Unsure
from shard.build_pace import BuildPace
from shard.checkpoint import IndexVersion
from shard.crossing import Crossing
from shard.doubts import doubts
from shard.effective import EffectiveSource, Fallback
from shard.folders import ReplicaFolder
from shard.model_index import Around, ModelIndex, prepare_folder
from shard.next_documents import Backfill
from shard.rebuilder import Outside, Wanted
from shard.seq_waiters import SeqWaiters
from shard.settings import ShardSettings
from shard.storage import Storage, StorageEvent
from shard.upgrading import LoadedUpgrade

# Address space only: the database grows as it needs, up to the quota.
MAP_SIZE = 2**43
# A sequence number that no log reaches: whoever waits for it hears of a failure only.
NEVER = 2**63

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
class ModelOutside:
    """What the index of one model has to do with the rest of its server. `closed` is called when it is closed while the
    replica goes on."""

    outside: Outside
    closed: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ReplicaOutside:
    """The same for a replica: `of` is asked once for each index that is opened. `pace` is shared by all builds of the process."""

    of: Callable[[str], ModelOutside]
    pace: BuildPace


class Engine:
    """Open it with Engine.open. Except for `follow`, `apply` and `close`, which the replica's own thread calls, everything may
    be asked from any thread."""

    def __init__(
        self,
        folder: ReplicaFolder,
        storage: Storage,
        settings: ShardSettings,
        outside: ReplicaOutside,
        collection: Collection,
    ) -> None:
        # Told of every search of a client: builds rest meanwhile.
        self.pace = outside.pace
        self.folder = folder
        self.storage = storage
        self.settings = settings
        self.progress = Progress()
        self.durable = SeqWaiters()
        # Ends long work on the files, which close() would wait for.
        self.closing = threading.Event()
        self.collection = collection
        self.upgrade: LoadedUpgrade | None = None
        # By name. Replaced as a whole, so that whoever looks sees one state.
        self.models: dict[str, ModelIndex] = {}
        self.backfill = Backfill(storage, unsure_of=self._unsure_of)
        self._crossings: dict[tuple[str, bool], Crossing] = {}
        self._outside = outside.of

    @classmethod
    def open(
        cls,
        collection: Collection,
        upgrade: LoadedUpgrade | None,
        folder: ReplicaFolder,
        settings: ShardSettings,
        outside: ReplicaOutside,
        observe: Callable[[StorageEvent], None],
    ) -> "Engine":
        """Opens or creates the files; blocks. The indexes are then on their way, see reached(). `observe` is called after
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
            engine = cls(folder, storage, settings, outside, collection)
            undo.callback(engine._close_indexes)
            engine.durable.reached(storage.position.seq)
            engine.follow(collection, upgrade)
            undo.pop_all()
        return engine

    # --- Its models ---------------------------------------------------------------------------------------------------

    @property
    def serving(self) -> ModelIndex:
        """The index of the collection's serving model."""
        return self.models[self.collection.serving_model]

    def know_models(self, collection: Collection) -> None:
        """Tells the database which models records may have vectors of, and which were given up. Blocks for a moment."""
        for model in collection.models:
            self.storage.declare_model(model.number, model.dimension)
        numbers = {model.name: model.number for model in collection.models}
        self.storage.retire_models(frozenset(numbers[name] for name in collection.dropped))

    def follow(self, collection: Collection, upgrade: LoadedUpgrade | None) -> None:
        """Takes the collection and its upgrade as the registry has them now: opens and closes indexes. Blocks."""
        self.know_models(collection)
        wanted = indexed_models(collection, upgrade.record if upgrade else None)
        models = dict(self.models)
        with ExitStack() as undo:
            for model in wanted:
                fallback = upgrade.fallback_of(model.name) if upgrade else None
                if model.name in models:
                    _fill(models[model.name], fallback)
                    models[model.name].indexer.want(wanted_by(collection))
                else:
                    models[model.name] = self._opened(model, collection, upgrade, fallback)
                    undo.callback(models[model.name].close)  # nobody else would, if the next one cannot be opened
            undo.pop_all()
        closed = [models.pop(name) for name in self.models if name not in {model.name for model in wanted}]
        self.collection, self.models = collection, models
        self._crossings = self._crossings_of(upgrade) if upgrade else {}
        self.upgrade = upgrade
        for index in closed:
            index.discard()
            self._outside(index.model.name).closed()
        self._remove_left_over()
        for index in models.values():
            index.indexer.notify()

    def drop_vectors(self) -> None:
        """Lets go of the vectors of models that were given up. Blocks, in many small transactions; may be repeated."""
        numbers = {model.name: model.number for model in self.collection.models}
        for name in self.collection.dropped:
            if self.storage.documents_with_vector(numbers[name]):
                self.storage.drop_vectors(numbers[name])

    def _opened(
        self, model: Model, collection: Collection, upgrade: LoadedUpgrade | None, fallback: Fallback | None
    ) -> ModelIndex:
        folder = self.folder.index / str(model.number)
        prepare_folder(folder, upgrade.mapped_by(model.name) if upgrade else "")
        source = EffectiveSource(self.storage, fallback)
        around = Around(
            self._outside(model.name).outside,
            partial(self.crossing, model.name),
            partial(self.backfill.observe, model.number),
        )
        index = ModelIndex.open(model, folder, source, wanted_by(collection), self.settings, around)
        # A checkpoint may be older than the fallback.
        index.indexer.read_again(source.filled_rows(model.number), missing_only=True)
        return index

    def _remove_left_over(self) -> None:
        """The index of a model that was given up while this server was away."""
        kept = {index.folder for index in self.models.values()}
        for folder in [path for path in self.folder.index.iterdir() if path not in kept]:
            remove_folder(folder)

    def crossing(self, name: str) -> Crossing | None:
        """How documents without a vector of this model take part in its searches now; None where all have one."""
        index, upgrade = self.models.get(name), self.upgrade
        if index is None or upgrade is None:
            return None
        if self.storage.documents_with_vector(index.model.number) >= self.storage.documents:
            return None
        is_filled = index.source.fallback is not None and index.is_serving
        # None in the moment in which the upgrade changes.
        return self._crossings.get((name, is_filled))

    def _crossings_of(self, upgrade: LoadedUpgrade) -> dict[tuple[str, bool], Crossing]:
        """By the searched model, and by whether its index serves projected vectors already."""
        old, new = upgrade.record.old_model, upgrade.record.new_model.name
        found: dict[tuple[str, bool], Crossing] = {}
        for name, other in ((old, new), (new, old)):
            model, other_model = self.collection.model(name), self.collection.model(other)
            if model is not None and other_model is not None:
                serving = partial(self._serving_of, other)
                for is_filled in (False, True):
                    found[name, is_filled] = upgrade.crossing(model, other_model, serving, is_filled=is_filled)
        return found

    def _unsure_of(self, model: int) -> Unsure:
        return partial(doubts, self.storage, lambda: self.upgrade, model)

    def _serving_of(self, name: str) -> IndexVersion | None:
        index = self.models.get(name)
        return None if index is None else index.indexer.serving

    # --- Reading and writing ------------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """What is synced to disk."""
        return self.storage.position

    @property
    def searchable_seq(self) -> int:
        """Up to where all indexes that serve are; the others are on their way, and nobody waits for them."""
        return min(index.indexer.searchable.seq for index in self._followed())

    @property
    def documents(self) -> int:
        return self.storage.documents

    @property
    def failure(self) -> Exception | None:
        """Why an index no longer follows; None while all do."""
        return next(
            (index.indexer.failure for index in self.models.values() if index.indexer.failure is not None), None
        )

    def _followed(self) -> list[ModelIndex]:
        """The indexes that writes wait for: those that serve, and the serving model's in any case."""
        serving = self.collection.serving_model
        return [index for name, index in self.models.items() if name == serving or index.is_serving]

    def apply(self, entries: Sequence[LogEntry]) -> None:
        """Applies records in one synced transaction, then tells those who wait. Blocks; for the writer's thread."""
        failpoints.hit("replay.before_commit")
        started = time.perf_counter()
        position = self.storage.apply(entries)
        _APPLY_SECONDS.observe(time.perf_counter() - started)
        _REPLAYED.inc(sum(entry.records for entry in entries))
        self.progress.applied_at = time.monotonic()
        failpoints.hit("replay.after_commit")
        self.durable.reached(position.seq)
        for index in self.models.values():
            index.indexer.notify()

    async def reached(self, seq: int, timeout_s: float, *, searchable: bool) -> bool:
        """Whether the disk, or every index that serves, holds `seq` in time. Unavailable when it never will."""
        try:
            async with asyncio.timeout(timeout_s):
                if not searchable:
                    await self.durable.wait(seq)
                for index in self._followed() if searchable else ():
                    await self._reached_by(index, seq)
        except TimeoutError:
            return False
        return True

    async def watch(self, seconds: float) -> None:
        """Waits so long, and raises Unavailable as soon as one of the indexes that are open now fails."""
        watching = [asyncio.create_task(self._reached_by(index, NEVER)) for index in self.models.values()]
        try:
            done, _ = await asyncio.wait(watching, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            await end(watching)

    async def _reached_by(self, index: ModelIndex, seq: int) -> None:
        try:
            await index.indexer.wait_searchable(seq)
        except Unavailable:
            # An index that was closed because nothing needs it any more keeps nobody waiting.
            if self.models.get(index.model.name) is index or self.closing.is_set():
                raise

    def trim(self, tail_below: int) -> None:
        """Lets go of the tail that no replica needs, and of the journal that neither an index nor anybody who asks
        for outcomes does."""
        keep_from = max(self.position.seq - self.settings.keep_journal_records, 0)
        needed = min(index.indexer.journal_needed_from for index in self.models.values())
        self.storage.trim(min(needed, keep_from), tail_below)

    def close(self) -> None:
        """Saves checkpoints and closes everything, whatever of it fails. Blocks."""
        self.closing.set()
        with ExitStack() as closing:
            closing.callback(self.storage.close)
            closing.callback(self.durable.fail, "the replica is closed", "REPLICA_CLOSED")
            closing.callback(self._close_indexes)

    def _close_indexes(self) -> None:
        with ExitStack() as closing:
            for index in self.models.values():
                closing.callback(index.close)


def _fill(index: ModelIndex, fallback: Fallback | None) -> None:
    """Sets what fills the gaps of an open index. Documents that lack their own vector may have come before it was known."""
    before, index.source.fallback = index.source.fallback, fallback
    is_same = before is not None and fallback is not None and before.projection is fallback.projection
    if fallback is not None and not is_same:
        index.indexer.read_again(index.source.filled_rows(index.model.number), missing_only=False)
