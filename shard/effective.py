"""The vectors that an index of a model is made of while its collection is upgraded: a document's own, else its vector of the
other model, projected.

Guarantees what a DocumentSource does; a row has a vector as soon as it has one of either model, and its own counts. When the
fallback is set while an index follows the journal, the journal does not tell: the index must read `filled_rows` again, since
there may be documents that lack their own vector already. Knows nothing of upgrades.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.tree import Filter
from kintsugi.metrics import FloatArray
from kintsugi.position import Position
from kintsugi.projections.projection import Projection
from shard.attributes.lookup import Matches
from shard.journal import JournalSlice
from shard.reader import Fields, HitColumns, Mask, Reader
from shard.storage import Storage

_BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Fallback:
    """Where a row's vector comes from when it has none of the model: that of `model`, projected."""

    model: int
    projection: Projection


class EffectiveSnapshot:
    """One consistent state of the documents, for the thread that opened it."""

    def __init__(self, reader: Reader, fallback: Fallback | None) -> None:
        self._reader = reader
        self._fallback = fallback

    def vectors(self, model: int, rows: Rows) -> tuple[Mask, FloatArray]:
        """As Reader.vectors, but for rows that only the fallback knows."""
        present, own = self._reader.vectors(model, rows)
        fallback = self._fallback
        if fallback is None or present.all():
            return present, own
        lacking = np.flatnonzero(~present)
        there, others = self._reader.vectors(fallback.model, rows[lacking])
        filled = lacking[there]
        if len(filled):
            own = own.astype(np.float32)
            own[filled] = fallback.projection.apply(others[there])
            present[filled] = True
        return present, own

    @property
    def seq(self) -> int:
        return self._reader.seq

    def rows_with(self, model: int) -> Matches:
        """The rows that have a vector of their own of the model."""
        return self._reader.rows_with(model)

    def match(self, condition: Filter) -> Matches:
        return self._reader.match(condition)

    def hits(self, rows: Rows, fields: Fields) -> HitColumns:
        return self._reader.hits(rows, fields)


class EffectiveSource:
    """The documents of one replica as the index of one model sees them. Safe from any thread, as storage is."""

    def __init__(self, storage: Storage, fallback: Fallback | None = None) -> None:
        self._storage = storage
        self.fallback = fallback

    @property
    def position(self) -> Position:
        return self._storage.position

    @property
    def documents(self) -> int:
        return self._storage.documents

    @property
    def first_row(self) -> int:
        return self._storage.first_row

    @property
    def stored_dtype(self) -> np.dtype[Any] | None:
        return self._storage.stored_dtype if self.fallback is None else None

    def documents_with_vector(self, model: int) -> int:
        """With a fallback all of them: a document has a vector of one model at least."""
        return self._storage.documents_with_vector(model) if self.fallback is None else self._storage.documents

    def digest_at(self, seq: int) -> bytes | None:
        return self._storage.digest_at(seq)

    def changed_rows(self, after_seq: int, limit: int, model: int | None = None) -> JournalSlice:
        """An embed of the fallback's model changes nothing for the many rows that have a vector of their own."""
        if self.fallback is None or model is None:
            return self._storage.changed_rows(after_seq, limit, model)
        every = self._storage.changed_rows(after_seq, limit)
        if every.position.seq <= after_seq:
            return every
        own = self._storage.changed_rows(after_seq, every.position.seq - after_seq, model)
        others = np.setdiff1d(every.rows, own.rows, assume_unique=True)
        # Read later than the journal was: a row that got or lost its own vector meanwhile is in the next slice.
        with self._storage.reading() as reader:
            lacking = others[~reader.has_vectors(model, others)]
        return JournalSlice(every.position, np.union1d(own.rows, lacking))

    def filled_rows(self, model: int) -> Iterator[Rows]:
        """The rows whose vector is the fallback's, in blocks. As they are when the first block is asked for."""
        if (fallback := self.fallback) is None:
            return
        with self._storage.reading() as reader:
            rows = (reader.rows_with(fallback.model) - reader.rows_with(model)).rows()
        for start in range(0, len(rows), _BLOCK_ROWS):
            yield rows[start : start + _BLOCK_ROWS]

    def vectors(self, model: int, rows: Rows) -> tuple[Mask, FloatArray]:
        with self.reading() as snapshot:
            return snapshot.vectors(model, rows)

    def all_vectors(self, model: int) -> Iterator[tuple[Rows, FloatArray]]:
        """In row order, in blocks of one state each."""
        if self.fallback is None:
            yield from self._storage.all_vectors(model)
            return
        row = 0
        while True:
            with self._storage.reading() as reader:
                rows = reader.rows_after(row, _BLOCK_ROWS)
                present, vectors = EffectiveSnapshot(reader, self.fallback).vectors(model, rows)
            if present.any():
                yield rows[present], vectors[present]
            if len(rows) < _BLOCK_ROWS:
                return
            row = int(rows[-1])

    @contextmanager
    def reading(self) -> Iterator[EffectiveSnapshot]:
        with self._storage.reading() as reader:
            yield EffectiveSnapshot(reader, self.fallback)
