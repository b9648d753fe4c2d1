"""What the index side of a replica needs of its storage.

Storage satisfies it; tests of the index use a small one in memory. Every call is safe from any thread and sees one
consistent state; two calls may see different ones.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.tree import Filter
from kintsugi.metrics import FloatArray
from kintsugi.position import Position
from shard.attributes.lookup import Matches
from shard.journal import JournalSlice
from shard.reader import Fields, HitColumns

Mask = npt.NDArray[np.bool_]


class VectorSource(Protocol):
    """Where stored vectors are read."""

    def vectors(self, model: int, rows: Rows) -> tuple[Mask, FloatArray]:
        """Which rows have a vector, and a line for each row asked for; those of absent rows mean nothing."""
        ...


class DocumentsSnapshot(VectorSource, Protocol):
    """One consistent state of the documents, for the thread that opened it."""

    @property
    def seq(self) -> int:
        """That of the last record in it."""
        ...

    def match(self, condition: Filter) -> Matches:
        """The rows of the documents that fulfil a filter, with vectors or without."""
        ...

    def rows_with(self, model: int) -> Matches:
        """The rows that have a vector of their own of the model."""
        ...

    def hits(self, rows: Rows, fields: Fields) -> HitColumns: ...


class DocumentSource(VectorSource, Protocol):
    """The documents of one replica."""

    @property
    def position(self) -> Position: ...

    @property
    def documents(self) -> int: ...

    @property
    def first_row(self) -> int:
        """No document has a row below this one, nor will one ever have."""
        ...

    @property
    def stored_dtype(self) -> np.dtype[Any] | None:
        """That of all vectors, which are as they are stored. None while some of them are computed."""
        ...

    def documents_with_vector(self, model: int) -> int: ...

    def digest_at(self, seq: int) -> bytes | None:
        """None when the journal no longer reaches back to `seq`, or not yet forward."""
        ...

    def changed_rows(self, after_seq: int, limit: int, model: int | None = None) -> JournalSlice:
        """What the next records changed; with a model, without the rows whose vector of it did not change."""
        ...

    def all_vectors(self, model: int) -> Iterator[tuple[Rows, FloatArray]]:
        """All vectors in blocks of ascending rows, each row once, in more than one transaction."""
        ...

    def reading(self) -> AbstractContextManager[DocumentsSnapshot]: ...
