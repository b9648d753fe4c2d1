"""Keeps the index of one model up with the journal.

Outline of the thread: start from the newest checkpoint that fits the storage, else build from all vectors; then over
and over: apply the next slice of the journal, publish how far the index is, let the rebuilder do what is due and swap in
what it has finished, save a checkpoint when one is due.

Invariants:
1. `searchable` is published only after the serving index holds all records up to it.
2. An index may hold newer vectors than its position tells, never older: rows are read from storage as they are when
   the slice is applied, and applying a slice twice is a no-op.
3. A new version replaces the old between two slices, so a search never sees a step back.
4. `steady` is told only while the serving index holds exactly what storage holds at a position.
5. The thread ends only by `close` or by a failure, which is kept in `failure` and raised to all who wait.

Knows nothing of documents' contents, of the log or of RPC.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kintsugi import failpoints
from kintsugi.ann.vector_index import GraphParameters, Rows
from kintsugi.durable import DISK, Disk
from kintsugi.position import START, Position
from kintsugi.registry.index_versions import IndexVersionEvent
from kintsugi.telemetry import LogEvent, logger, metric_names, metrics
from shard.checkpoint import Checkpoints, IndexedModel, IndexVersion
from shard.rebuild_policy import RebuildSettings
from shard.rebuilder import Outside, Rebuilder, Wanted
from shard.refusals import Refusals
from shard.seq_waiters import SeqWaiters
from shard.source import DocumentSource
from shard.steady import Steady
from shard.storage_faults import fault_of

_log = logger("indexer")
_CHECKPOINT_SECONDS = metrics.histogram(metric_names.CHECKPOINT_SECONDS)


@dataclass(frozen=True, slots=True)
class IndexerSettings:
    """`slice_records`: journal records applied at once; lower it for a smoother `searchable`, raise it for throughput.
    `checkpoint_changes`, `checkpoint_s`: a checkpoint is saved after so many changed rows, or so long after the
    first of them; raise them to write less, lower them to restart faster and keep less journal."""

    slice_records: int = 512
    checkpoint_changes: int = 50_000
    checkpoint_s: float = 300.0
    graph: GraphParameters = field(default_factory=GraphParameters)
    rebuild: RebuildSettings = field(default_factory=RebuildSettings)


class Indexer:
    """Follows one replica's journal for one model. `wanted` is the encoding that the collection asks for."""

    def __init__(
        self,
        source: DocumentSource,
        model: IndexedModel,
        folder: Path,
        *,
        wanted: Wanted | None = None,
        settings: IndexerSettings | None = None,
        outside: Outside | None = None,
        disk: Disk = DISK,
    ) -> None:
        self._source = source
        self.model = model
        self._settings = settings or IndexerSettings()
        outside = outside or Outside()
        self._on_version = outside.on_version
        self._checkpoints = Checkpoints(folder, model, self._settings.graph, disk)
        self._wake = threading.Event()
        refusals = Refusals(folder, disk)
        self._rebuilder = Rebuilder(source, model, self._checkpoints, refusals, self._settings, outside, self._wake.set)
        self._rebuilder.want(wanted or Wanted())
        self._kept_seqs = self._checkpoints.seqs()
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None
        self._saved_position = START
        self._changed_rows = 0
        self._changed_since = 0.0
        self._serving: IndexVersion | None = None
        self._again: deque[tuple[Iterator[Rows], bool]] = deque()
        self._waiters = SeqWaiters()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"indexer-{model.number}", daemon=True)
        self._position = START
        self._steady: Steady | None = None
        self.failure: Exception | None = None

    @property
    def serving(self) -> IndexVersion | None:
        """The version that searches use. None until the first one is loaded or built."""
        return self._serving

    @property
    def is_building(self) -> bool:
        """Whether another version is in the making, or the first one is."""
        return self._rebuilder.build is not None or self._serving is None

    @property
    def rebuilder(self) -> Rebuilder:
        """What is built, wanted and refused: see there what may be read from any thread."""
        return self._rebuilder

    @property
    def searchable(self) -> Position:
        """Searches see all records up to here."""
        return self._position

    @property
    def steady(self) -> Steady | None:
        """The state that the serving index holds exactly; None while it changes or lags. Each change makes a new object: as long
        as it is the same, the index has not changed."""
        return self._steady

    @property
    def checkpoint_seq(self) -> int:
        """The position of the newest checkpoint on disk, 0 when there is none."""
        return max(self._kept_seqs, default=0)

    @property
    def journal_needed_from(self) -> int:
        """The journal must keep the record of this number and all after it."""
        return min([self._position.seq, *self._kept_seqs])

    def start(self) -> None:
        self._thread.start()

    def notify(self) -> None:
        """Tells that storage has moved on. From any thread."""
        self._wake.set()

    def want(self, wanted: Wanted) -> None:
        """Tells which encoding the collection asks for now. From any thread."""
        if wanted != self._rebuilder.wanted:
            self._rebuilder.want(wanted)
            self._wake.set()

    def read_again(self, blocks: Iterator[Rows], *, missing_only: bool) -> None:
        """Takes rows whose vectors changed without the journal telling, after what is on its way; with `missing_only` those
        that the index does not hold. The blocks, without duplicates, are asked for on the indexer's thread. From any thread."""
        self._again.append((blocks, missing_only))
        self._wake.set()

    async def wait_searchable(self, seq: int) -> None:
        """Returns once searches see all records up to `seq`. Raises Unavailable when that will never be."""
        await self._waiters.wait(seq)

    def close(self) -> None:
        """Saves a checkpoint and ends the thread. Blocks for as long as both take."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._saver.shutdown()
        self._rebuilder.close()
        if self._serving is not None:
            self._serving.index.close()
        self._waiters.fail("the index is closed", "INDEX_CLOSED")

    def _main(self) -> None:
        try:
            self._open()
            while not self._stop.is_set():
                self._turn()
            self._save_last()
        except Exception as error:  # noqa: BLE001 -- whoever waits must learn of it, whatever it is
            _log.exception(LogEvent.INDEXER_FAILED, model=self.model.number, seq=self._position.seq)
            self.failure = error
            reason = fault_of(error).reason if isinstance(error, OSError) else "INDEX_FAILED"
            self._waiters.fail(f"the index failed: {error}", reason)

    def _turn(self) -> None:
        self._wake.clear()
        followed = self._follow() or self._read_some_again()
        swapped = self._serving is not None and self._swap(self._rebuilder.work(self._serving))
        if not followed and not swapped:
            self._wake.wait(_sooner(self._rebuilder.rest_s, self._seconds_to_checkpoint()))
        self._checkpoint_if_due()

    def _swap(self, new: IndexVersion | None) -> bool:
        if new is None:
            return False
        self._serve(new, self._position, IndexVersionEvent.SWAPPED_IN)
        # The checkpoints so far are of the old version.
        self._changed_rows = max(self._changed_rows, self._settings.checkpoint_changes)
        failpoints.hit("indexer.after_swap")
        return True

    # Opening

    def _open(self) -> None:
        """Ends with a serving version whose position the journal continues from."""
        for version, position in self._checkpoints.load_newest():
            if self._continues_from(position):
                self._kept_seqs = self._checkpoints.seqs()
                self._saved_position = position
                self._serve(version, position, IndexVersionEvent.LOADED)
                return
            _log.warning(LogEvent.CHECKPOINT_MISFIT, model=self.model.number, seq=position.seq, number=version.number)
            self._checkpoints.remove(version, position)
        self._kept_seqs = []
        self._build_first()

    def _continues_from(self, position: Position) -> bool:
        """Whether the storage's history contains the position and its journal reaches back to it."""
        if position.seq > self._source.position.seq:
            return False
        if position.seq == 0:
            return self._source.position.seq == 0
        return self._source.digest_at(position.seq) == position.digest

    def _build_first(self) -> None:
        # Taken before the scan: whatever the scan misses is behind it in the journal.
        position = self._source.position
        if (version := self._rebuilder.build_first(self._stop.is_set)) is not None:
            self._serve(version, position, IndexVersionEvent.SWAPPED_IN)

    def _serve(self, version: IndexVersion, position: Position, event: IndexVersionEvent) -> None:
        self._rebuilder.serves(version)
        self._serving = version
        self._on_version(version.number, version.encoding, event)
        self._publish(position)

    # Following the journal

    def _follow(self) -> bool:
        if self._position.seq >= self._source.position.seq:
            return False
        changes = self._source.changed_rows(self._position.seq, self._settings.slice_records, self.model.number)
        if changes.position.seq <= self._position.seq:
            return False
        self._apply(changes.rows)
        failpoints.hit("indexer.after_apply")
        self._publish(changes.position)
        return True

    def _read_some_again(self) -> bool:
        """One block."""
        while self._again:
            blocks, missing_only = self._again[0]
            rows = next(blocks, None)
            if rows is not None:
                assert self._serving is not None
                self._apply(rows[~self._serving.index.graph.contains(rows)] if missing_only else rows)
                self._steady = self._steady_at(self._position.seq)
                return True
            self._again.popleft()
        return False

    def _apply(self, rows: Rows) -> None:
        if not len(rows):
            return
        assert self._serving is not None
        self._steady = None
        index = self._serving.index
        present, vectors = self._source.vectors(self.model.number, rows)
        current, gone = vectors[present], rows[~present]
        index.remove(gone)
        index.add(rows[present], current)
        self._rebuilder.changed(self._serving, rows[present], current, gone)
        if not self._changed_rows:
            self._changed_since = time.monotonic()
        self._changed_rows += len(rows)

    def _publish(self, position: Position) -> None:
        self._position = position
        self._steady = self._steady_at(position.seq)
        self._waiters.reached(position.seq)

    def _steady_at(self, seq: int) -> Steady | None:
        """None while the index lags: it may hold rows as they became later."""
        if self._serving is None or self._source.stored_dtype is None:
            return None
        with self._source.reading() as snapshot:
            return Steady(seq, self._serving.index) if snapshot.seq == seq else None

    # Checkpoints

    def _seconds_to_checkpoint(self) -> float | None:
        """How long there is nothing to do. None: until somebody wakes the thread, as the end of a saving does."""
        if self._saving is not None or not self._changed_rows:
            return None
        return max(0.0, self._changed_since + self._settings.checkpoint_s - time.monotonic())

    def _checkpoint_if_due(self) -> None:
        if self._saving is not None:
            if not self._saving.done():
                return
            self._finish_saving(self._saving)
        if self._changed_rows >= self._settings.checkpoint_changes or self._seconds_to_checkpoint() == 0.0:
            self._save()

    def _save(self) -> None:
        """Saves the index on this thread, syncs and publishes it on another: the journal goes on meanwhile."""
        assert self._serving is not None
        self._changed_rows = 0
        started = time.perf_counter()
        saved = self._checkpoints.save(self._serving, self._position)
        self._saved_position = self._position
        self._saving = self._saver.submit(self._checkpoints.publish, saved)
        self._saving.add_done_callback(lambda _: self._saved(started))

    def _saved(self, started: float) -> None:
        _CHECKPOINT_SECONDS.observe(time.perf_counter() - started)
        self._wake.set()

    def _finish_saving(self, saving: Future[None]) -> None:
        self._saving = None
        saving.result()
        self._kept_seqs = self._checkpoints.seqs()

    def _save_last(self) -> None:
        if self._saving is not None:
            self._finish_saving(self._saving)
        if self._serving is not None and (self._changed_rows or self._saved_position != self._position):
            self._save()
            assert self._saving is not None
            self._finish_saving(self._saving)


def _sooner(one: float | None, other: float | None) -> float | None:
    """The shorter of two waits, of which None has no end."""
    return min((wait for wait in (one, other) if wait is not None), default=None)
