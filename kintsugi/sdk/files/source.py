"""What a bulk import reads from: batches of documents that can be read again from any place.

A source is cut into the same batches whenever it is read with the same size from the start of one of them: that is
what makes an interrupted import continue without writing anything twice. Items that cannot be documents are rejected
one by one, with their place; what is wrong with a source as a whole raises. Knows nothing about clusters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from kintsugi.ids import DocId


class Cursor(NamedTuple):
    """Where an item starts: its place, from 0, and what the source needs to go there at once."""

    place: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that was not written. `where` is for people, such as "line 17"; `id` is None when it has none."""

    place: int
    where: str
    id: DocId | None
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class ImportBatch:
    """The documents between two cursors. Entry i of each column belongs to the item at `places[i]`; `rejected` stood
    between them. `attributes` and `texts` are None when the source has none."""

    first: Cursor
    next: Cursor
    places: Sequence[int]
    ids: Sequence[DocId] | npt.NDArray[Any]
    vectors: npt.NDArray[Any]
    attributes: Sequence[dict[str, Any]] | None = None
    texts: Sequence[str] | None = None
    rejected: tuple[Rejected, ...] = ()


class ImportSource(Protocol):
    """`name` says what it is, `fingerprint` changes with its content, `length` is the offset behind its last item."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def length(self) -> int: ...

    def where(self, place: int) -> str:
        """A place for people, such as "line 17"."""
        ...

    def read(self, start: Cursor, size: int, dimension: int) -> Iterator[ImportBatch]:
        """Batches of at most `size` items from `start` on. Vectors of another dimension are rejected, or raise
        InvalidArgument when all of them are."""
        ...
