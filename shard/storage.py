"""The truth of a replica: its documents, their vectors, its journal and the tail of its log, in one LMDB environment.

Guarantees:
1. A batch is one transaction, synced before apply() returns: documents, the index of their attributes, journal, tail
   and position move together.
2. A record that does not continue the replica's history (gap, fork, fenced epoch), or that cannot be read, refuses its
   whole batch: nothing is written. A record that is already applied is compared and skipped.
3. Reads see one committed state each; reading() holds one state over several reads. Any thread may read or write;
   writes take turns.
4. Rows are never given twice: a row that is gone stays gone.

Does not know Redis, RPC or the index.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from pyroaring import BitMap64

from kintsugi.filters.tree import Filter
from kintsugi.limits import MAX_PAGE_BYTES
from kintsugi.log.faults import LogForked
from kintsugi.log.read import LogEntry, verify_next
from kintsugi.metrics import FloatArray, StoredType
from kintsugi.position import Position
from shard import journal, tail
from shard.attributes import upgrade
from shard.attributes.changes import AttributeChanges
from shard.attributes.columns import NumberColumns
from shard.attributes.lookup import Matches
from shard.attributes.writing import write_changes, write_sorted
from shard.batch import Batch
from shard.change import Change, parse_entry
from shard.environment import META_STATE, Environment, open_environment
from shard.fair_lock import FairLock
from shard.journal import JournalSlice, Rows
from shard.layout import State, encode_state, id_key, number
from shard.outcomes import Outcome
from shard.reader import NOTHING, Fields, HitColumns, Mask, Page, Reader, StoredDocument, find_document
from shard.storage_faults import EpochFenced, StorageFault, StorageFull, faults_mapped
from shard.tail import TailEntry
from shard.vector_removal import Removed, remove_some
from shard.vector_rows import Change as VectorChange
from shard.vector_rows import VectorRows

# Bounds of one transaction, so that neither writers nor pages wait long for it.
_TRIM_VALUES: Final = 2000
_TAIL_BYTES: Final = 4 * 2**20
_SCAN_BYTES: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class StorageEvent:
    """A transaction that was just committed: `kind` is "commit", "fence" or "trim" (of what
    nobody needs), `seq` the position in it, `synced` whether it had reached the disk by then."""

    kind: str
    seq: int
    synced: bool


def ignore(event: StorageEvent) -> None:
    """The observer of those who do not observe."""


class Storage:
    """Open it with Storage.open. `observe` is called after each commit and before anybody can see it."""

    def __init__(self, environment: Environment, state: State, *, stored: StoredType, max_bytes: int) -> None:
        self._environment = environment
        self._databases = environment.databases
        self._state = state
        self._columns = NumberColumns(state.seq)
        self._vector_rows = VectorRows()
        self._dtype = stored.dtype
        self._max_bytes = max_bytes
        self._dimensions: dict[int, int] = {}
        self._vector_bytes: dict[int, int] = {}
        self._retired: frozenset[int] = frozenset()
        # Embed records that came too late for their document, since it was opened.
        self.stale_vectors = 0
        self._observe: Callable[[StorageEvent], None] = ignore
        self._write_lock = FairLock()
        self._readers = threading.Condition()
        self._reading = 0
        self._closed = False
        with self._transaction() as txn:
            self._documents = int(txn.stat(self._databases.documents)["entries"])

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        stored: StoredType,
        models: Mapping[int, int],
        map_size: int,
        max_bytes: int,
        sync: bool = True,
        observe: Callable[[StorageEvent], None] = ignore,
    ) -> "Storage":
        """Opens or creates the database in the folder `path`. `models` maps model numbers to dimensions; `max_bytes`
        bounds the pages in use. `sync=False` is for tests that must notice it."""
        environment, state = open_environment(path, stored=stored, map_size=map_size, sync=sync)
        try:
            with faults_mapped:
                state = upgrade.index_documents(environment, state)
        except BaseException:
            environment.env.close()
            raise
        storage = cls(environment, state, stored=stored, max_bytes=max_bytes)
        storage._observe = observe
        for model, dimension in models.items():
            storage.declare_model(model, dimension)
        return storage

    def declare_model(self, model: int, dimension: int) -> None:
        """Makes vectors of a model acceptable. Idempotent; a dimension never changes."""
        if self._dimensions.setdefault(model, dimension) != dimension:
            raise ValueError(f"model {model} has dimension {self._dimensions[model]}, not {dimension}")
        self._vector_bytes[model] = dimension * self._dtype.itemsize

    def retire_models(self, models: Set[int]) -> None:
        """Gives models up for good, unknown ones too: records to come are applied without their vectors. Replicas stay
        equal only if no model returns under its number, and all of them get to know in the end."""
        with self._write_lock:
            self._retired |= models

    def drop_vectors(self, model: int) -> int:
        """Deletes the vectors of a model, in transactions of bounded size that let other writes through, and returns how
        many. May be interrupted and begun anew. Nobody may search the model: the journal does not tell of it."""
        dropped, row = 0, 0
        while True:
            removed = self._drop_some(model, row)
            dropped += len(removed.rows)
            if removed.last is None:
                return dropped
            row = removed.last

    def close(self) -> None:
        """Waits for the transactions under way, then closes. Idempotent."""
        with self._write_lock, self._readers:
            if self._closed:
                return
            self._closed = True
            self._readers.wait_for(lambda: not self._reading)
            self._environment.env.close()

    @property
    def position(self) -> Position:
        """What is committed, and with `sync` synced."""
        return self._state.position

    @property
    def fenced_epoch(self) -> int:
        return self._state.fenced_epoch

    @property
    def documents(self) -> int:
        return self._documents

    @property
    def retired_models(self) -> frozenset[int]:
        return self._retired

    def documents_with_vector(self, model: int) -> int:
        return self._state.vectors.get(model, 0)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def first_row(self) -> int:
        """No document has a row below this one, nor will one ever have."""
        # Read before the transaction begins, so that no row is given in between.
        next_row = self._state.next_row
        with self._transaction() as txn:
            cursor = txn.cursor(self._databases.documents)
            return int.from_bytes(cursor.key(), "big") if cursor.first() else next_row

    @property
    def disk_bytes(self) -> int:
        return self._environment.disk_bytes

    @property
    def used_bytes(self) -> int:
        """What `max_bytes` bounds."""
        with self._transaction() as txn:
            return self._environment.used_bytes(txn)

    @property
    def column_bytes(self) -> int:
        """The memory of the number columns that filters have used."""
        return self._columns.bytes

    @property
    def is_synced(self) -> bool:
        return self._environment.is_synced

    # Writes.

    def apply(self, entries: Sequence[LogEntry]) -> Position:
        """Applies records in order, in one synced transaction, and returns the position after them."""
        with self._write_lock:
            fresh = self._verified(entries)
            if fresh:
                changes = [parse_entry(entry, self._vector_bytes, self._retired) for entry in fresh]
                self._write_batch(fresh, changes)
            return self._state.position

    def fence(self, epoch: int) -> None:
        """Durably promises never again to apply a record of an epoch below `epoch`."""
        with self._write_lock:
            if epoch <= self._state.fenced_epoch:
                return
            state = msgspec.structs.replace(self._state, fenced_epoch=epoch)
            with self._write_transaction() as txn:
                self._put_state(txn, state)
            self._publish("fence", state)

    def trim(self, journal_below: int, tail_below: int) -> int:
        """Deletes what the journal and the tail hold below these sequence numbers, in transactions of bounded size
        that let other writes through, and returns how many entries. The journal keeps the newest one."""
        journal_below = min(journal_below, self._state.seq)
        tail_below = min(tail_below, self._state.seq + 1)
        deleted = 0
        for database, below in ((self._databases.journal, journal_below), (self._databases.tail, tail_below)):
            count = _TRIM_VALUES
            while count == _TRIM_VALUES:
                count = self._trim_some(database, below)
                deleted += count
        return deleted

    # Reads of documents.

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Several reads of one state. Keep it short: pages freed meanwhile cannot be reused."""
        with self._transaction() as txn:
            yield Reader(txn, self._databases, self._dimensions, self._dtype, self._columns, self._vector_rows)

    def vectors(self, model: int, rows: Rows) -> tuple[Mask, FloatArray]:
        """Which rows have a vector of the model, and a line per row asked for: zeros where there is none."""
        with self.reading() as reader:
            return reader.vectors(model, rows)

    def all_vectors(self, model: int) -> Iterator[tuple[Rows, FloatArray]]:
        """All vectors of a model in row order, in chunks of one state each."""
        limit = max(1, _SCAN_BYTES // self._vector_bytes[model])
        row = 0
        while True:
            with self.reading() as reader:
                rows, matrix = reader.vectors_after(model, row, limit)
            if len(rows):
                yield rows, matrix
            if len(rows) < limit:
                return
            row = int(rows[-1])

    def match(self, condition: Filter) -> Matches:
        """The rows of the documents that fulfil a filter."""
        with self.reading() as reader:
            return reader.match(condition)

    def rows_with(self, model: int) -> Matches:
        """The rows that have a vector of the model."""
        with self.reading() as reader:
            return reader.rows_with(model)

    def hits(self, rows: Rows, fields: Fields = NOTHING) -> HitColumns:
        with self.reading() as reader:
            return reader.hits(rows, fields)

    def get(self, ids: Sequence[bytes], fields: Fields = NOTHING) -> list[StoredDocument | None]:
        """The documents in the order of the encoded ids, None for those that do not exist."""
        with self.reading() as reader:
            return reader.get(ids, fields)

    def scroll(self, after: bytes, limit: int, fields: Fields = NOTHING, *, max_bytes: int = MAX_PAGE_BYTES) -> Page:
        """The next documents in id order behind the encoded id `after`, b"" for the first."""
        with self.reading() as reader:
            return reader.scroll(after, limit, fields, max_bytes)

    # Reads of the journal and the tail.

    def changed_rows(self, after_seq: int, limit: int, model: int | None = None) -> JournalSlice:
        """What the next records after `after_seq` changed, at most `limit` records; with a model, without the rows that
        only got vectors of other models. JournalTrimmed when the journal does not reach back that far, or the replica
        not that far forward."""
        # Read before the transaction begins, so that the transaction is never behind it.
        position = self._state.position
        with self._transaction() as txn:
            after = position if after_seq == position.seq else None
            return journal.changed_rows(txn, self._databases.journal, after, after_seq, limit, model)

    def outcomes(self, first_seq: int, last_seq: int) -> list[tuple[Outcome, int]]:
        """The outcome and the document version after each record; FORGOTTEN where the journal does not tell."""
        with self._transaction() as txn:
            return journal.outcomes(txn, self._databases.journal, first_seq, last_seq)

    def digest_at(self, seq: int) -> bytes | None:
        """None when the journal no longer reaches back to `seq`, or not yet forward."""
        if seq == 0:
            return b""
        with self._transaction() as txn:
            position = journal.position_at(txn, self._databases.journal, seq)
        return None if position is None else position.digest

    @property
    def journal_first_seq(self) -> int:
        """The first record that the journal tells of, 0 when there is none."""
        with self._transaction() as txn:
            return journal.first_seq(txn, self._databases.journal)

    @property
    def tail_first_seq(self) -> int:
        """The first record that tail() can give, 0 when there is none."""
        with self._transaction() as txn:
            return tail.first_seq(txn, self._databases.tail)

    def tail(self, first: int, last: int) -> Iterator[TailEntry]:
        """The entries of the log that hold the records from `first` to `last`, as far as the replica has them.
        JournalTrimmed when the first record is no longer kept."""
        while first <= min(last, self._state.seq):
            with self._transaction() as txn:
                entries = tail.entries(txn, self._databases.tail, first, last, _TAIL_BYTES)
            yield from entries
            first = entries[-1].seq + 1

    def copy_to(self, path: Path) -> None:
        """Writes a compact, consistent copy into the folder `path`, while reads and writes go on. Not synced."""
        with self._counted(), faults_mapped:
            path.mkdir(parents=True, exist_ok=True)
            self._environment.env.copy(str(path), compact=True)

    # How.

    def _verified(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """The entries that are not applied yet, after all of them were checked against the replica's history."""
        fresh: list[LogEntry] = []
        position = last = self._state.position
        fenced = self._state.fenced_epoch
        for entry in entries:
            if entry.seq <= position.seq:
                known = self.digest_at(entry.seq)
                if known is not None and known != entry.digest:
                    raise LogForked(f"log holds another record {entry.seq} than the replica applied")
                continue
            if entry.epoch < fenced:
                raise EpochFenced(f"record {entry.seq} is of epoch {entry.epoch}, must be at least {fenced}")
            last = verify_next(last, entry)
            fresh.append(entry)
        return fresh

    def _write_batch(self, entries: Sequence[LogEntry], changes: Sequence[Sequence[Change]]) -> None:
        with self._memory_kept_right(), self._write_transaction() as txn:
            used_before = self._environment.used_bytes(txn)
            batch = Batch(lambda encoded: find_document(txn, self._databases, encoded), self._state.next_row)
            for entry, of_entry in zip(entries, changes, strict=True):
                for change in of_entry:
                    batch.add(change, entry.epoch, entry.digest)
            attributes = AttributeChanges.of(batch.attributes())
            self._write_planned(txn, batch)
            tail.append(txn, self._databases.tail, entries)
            written = write_changes(txn, self._databases, attributes, self._state.next_attribute)
            state = self._state_after(batch, entries[-1], written.next_number)
            self._put_state(txn, state)
            documents = int(txn.stat(self._databases.documents)["entries"])
            used = self._environment.used_bytes(txn)
            if used > self._max_bytes and used > used_before:
                raise StorageFull(f"replica would use {used} bytes, its quota is {self._max_bytes}")
            self._columns.tell(state.seq, written.numbers)
            self._vector_rows.tell(txn.id(), batch.vector_rows())
        self._documents = documents
        self.stale_vectors += batch.stale
        self._publish("commit", state)

    def _write_planned(self, txn: Any, batch: Batch) -> None:
        documents = batch.documents()
        for encoded, old, _ in batch.moved_ids():
            if old is not None:
                key, mark = id_key(encoded)
                txn.delete(key, mark + number(old), self._databases.ids)
        moved = sorted((id_key(encoded), new) for encoded, _, new in batch.moved_ids() if new is not None)
        ids = [(key, mark + number(new)) for (key, mark), new in moved]
        txn.cursor(self._databases.ids).putmulti(ids)
        write_sorted(txn, self._databases.documents, documents)
        write_sorted(txn, self._databases.vectors, batch.vectors)
        txn.cursor(self._databases.journal).putmulti(batch.journal, append=True)

    def _state_after(self, batch: Batch, last: LogEntry, next_attribute: int) -> State:
        before = self._state.vectors
        vectors = before | {model: before.get(model, 0) + change for model, change in batch.vector_counts.items()}
        return msgspec.structs.replace(
            self._state,
            epoch=last.epoch,
            seq=last.seq,
            digest=last.digest,
            next_row=batch.next_row,
            vectors=vectors,
            next_attribute=next_attribute,
        )

    def _trim_some(self, database: Any, below: int) -> int:
        with self._write_lock:
            with self._write_transaction() as txn:
                deleted = journal.delete_below(txn, database, below, _TRIM_VALUES)
            if deleted:
                self._publish("trim", self._state)
            return deleted

    def _drop_some(self, model: int, after: int) -> Removed:
        with self._write_lock, self._memory_kept_right():
            with self._write_transaction() as txn:
                removed = remove_some(txn, self._databases, model, after)
                counts = self._state.vectors
                left = counts | {model: counts.get(model, 0) - len(removed.rows)}
                state = msgspec.structs.replace(self._state, vectors=left)
                self._put_state(txn, state)
                self._vector_rows.tell(txn.id(), {model: VectorChange(BitMap64(), removed.rows)})
            self._publish("trim", state)
            return removed

    def _put_state(self, txn: Any, state: State) -> None:
        txn.put(META_STATE, encode_state(state), db=self._databases.meta)

    def _publish(self, kind: str, state: State) -> None:
        # First the observer, then the readers: no acknowledgement can come before the event that allows it.
        self._observe(StorageEvent(kind, state.seq, self._environment.is_synced))
        self._state = state

    @contextmanager
    def _memory_kept_right(self) -> Iterator[None]:
        """What is kept in memory may have been told of a transaction that then fails to commit."""
        try:
            yield
        except BaseException:
            self._columns.forget(self._state.seq)
            self._vector_rows.forget(self._environment.last_transaction)
            raise

    @contextmanager
    def _write_transaction(self) -> Iterator[Any]:
        with self._counted(), faults_mapped, self._environment.env.begin(write=True, buffers=True) as txn:
            yield txn

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._counted(), faults_mapped, self._environment.env.begin(buffers=True) as txn:
            yield txn

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Keeps close() from unmapping the file under a transaction."""
        with self._readers:
            if self._closed:
                raise StorageFault("storage is closed")
            self._reading += 1
        try:
            yield
        finally:
            with self._readers:
                self._reading -= 1
                if not self._reading:
                    self._readers.notify_all()
