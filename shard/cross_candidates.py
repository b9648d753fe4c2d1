"""Finds candidates in two parts: the documents that have a vector of the searched model, and those that lack one.

Each part is searched as with a filter: for as many candidates as are wanted, or all rows of the part. No row is in both. Serves
one batch, on one thread.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.tree import Filter
from kintsugi.metrics import FloatArray
from shard.attributes.lookup import Matches
from shard.checkpoint import IndexedModel
from shard.exact import exact_among
from shard.group_search import Finder
from shard.mixed_search import Spaces
from shard.source import DocumentsSnapshot

# How far a part may be denser among the hits than it is among all documents, before it is asked for more.
_ABOVE_SHARE, _SPARE = 2.0, 2


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows that have a vector of the searched model, those that have one of the other model, and those that have only that.
    Of one state."""

    native: Matches
    other: Matches
    lacking: Matches

    @classmethod
    def of(cls, snapshot: DocumentsSnapshot, model: int, other: int) -> "Parts":
        native, others = snapshot.rows_with(model), snapshot.rows_with(other)
        return cls(native, others, others - native)

    def __len__(self) -> int:
        return len(self.native) + len(self.lacking)


class PartFinder(Protocol):
    """Where the candidates of one part come from."""

    def find(self, queries: FloatArray, hits: int, matches: Matches | None) -> list[Rows]: ...


class StoredPart:
    """Compares with the stored vectors of the rows, for a part that has no index yet."""

    def __init__(self, snapshot: DocumentsSnapshot, model: IndexedModel) -> None:
        self._snapshot = snapshot
        self._model = model

    def find(self, queries: FloatArray, hits: int, matches: Matches | None) -> list[Rows]:
        rows = np.empty(0, dtype=np.uint64) if matches is None else matches.rows()
        found = exact_among(self._snapshot, self._model.number, self._model.metric, queries, hits, rows)
        return [one.rows for one in found]


class CrossCandidates:
    """Asks both parts. Queries come joined. `parts` tells them in the state that is searched. `is_apart`: without a filter the
    own part need not be told its rows, since it knows no others; except those that changed just now."""

    def __init__(
        self,
        whole: Finder,
        own: PartFinder,
        other: PartFinder,
        parts: Callable[[], Parts],
        spaces: Spaces,
        *,
        is_apart: bool,
    ) -> None:
        self._whole = whole
        self._own = own
        self._other = other
        self._parts = parts
        self._spaces = spaces
        self._is_apart = is_apart

    @property
    def are_in_order(self) -> bool:
        return self._whole.are_in_order

    def match(self, condition: Filter) -> Matches:
        return self._whole.match(condition)

    def reading(self) -> AbstractContextManager[DocumentsSnapshot]:
        return self._whole.reading()

    def find(self, queries: FloatArray, hits: int, matches: Matches | None) -> list[Rows]:
        """Candidates for so many hits of each query, those of the own part first."""
        parts = self._parts()
        native, lacking = parts.native, parts.lacking
        if matches is not None:
            native, lacking = native & matches, lacking & matches
        own_queries, other_queries = self._spaces.own(queries), self._spaces.other(queries)
        total = len(native) + len(lacking)
        if self._is_apart and matches is None:
            own = [rows[native.contains(rows)] for rows in self._own.find(own_queries, hits, None)]
        else:
            own = self._own.find(own_queries, self._due(hits, len(native), total), native)
        if not len(lacking):
            return own
        other = self._other.find(other_queries, self._due(hits, len(lacking), total), lacking)
        return [np.concatenate(pair) for pair in zip(own, other, strict=True)]

    def _due(self, hits: int, part: int, total: int) -> int:
        """The hits to look for in a part: more than its share. Where a part is denser than its share, around a query, it gives more
        candidates than it was asked for; where it is thinner, all of it that is not far from the query was among what the
        graph looked at. With candidates that shall all be scored, nothing is left to chance."""
        if not self.are_in_order:
            return hits
        return min(hits, ceil(_ABOVE_SHARE * hits * part / max(1, total)) + _SPARE)
