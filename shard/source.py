"""What the index side of a replica needs of its storage.

Storage satisfies it; tests of the index use a small one in memory. Every call is safe from any thread and sees one
consistent state; two calls may see different ones.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import FloatArray
from kintsugi.position import Position
from shard.index import Rows

Mask = npt.NDArray[np.bool_]


class JournalSlice(Protocol):
    """The rows that some consecutive records changed, each once, deleted ones included, and the last record."""

    @property
    def epoch(self) -> int: ...

    @property
    def last_seq(self) -> int: ...

    @property
    def digest(self) -> bytes: ...

    @property
    def rows(self) -> Rows: ...


class HitColumns(Protocol):
    """What there is at some rows, in the order asked for. Rows that are gone are left out of every column."""

    @property
    def rows(self) -> Rows: ...

    @property
    def ids(self) -> Sequence[bytes]: ...

    @property
    def versions(self) -> npt.NDArray[np.uint64]: ...

    @property
    def attributes(self) -> Sequence[str]: ...

    @property
    def texts(self) -> Sequence[str]: ...


class DocumentSource(Protocol):
    """The documents of one replica."""

    @property
    def position(self) -> Position: ...

    @property
    def documents(self) -> int: ...

    def documents_with_vector(self, model: int) -> int: ...

    def digest_at(self, seq: int) -> bytes | None:
        """None when the journal no longer reaches back to `seq`, or not yet forward."""
        ...

    def changed_rows(self, after_seq: int, limit: int) -> JournalSlice: ...

    def vectors(self, model: int, rows: Rows) -> tuple[Mask, FloatArray]:
        """Which rows have a vector, and a line for each row asked for; those of absent rows mean nothing."""
        ...

    def all_vectors(self, model: int) -> Iterator[tuple[Rows, FloatArray]]: ...
