"""Finds candidates in two parts: the documents that have a vector of the searched model, and those that lack one.

Each part is searched as with a filter: for as many candidates as are wanted, or all rows of the part. No row is in both. Serves
one batch, on one thread.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.tree import Filter
from kintsugi.metrics import FloatArray
from shard.attributes.lookup import Matches
from shard.candidates import IndexCandidates
from shard.checkpoint import IndexedModel
from shard.exact import exact_among
from shard.group_search import Finder
from shard.mixed_search import Spaces
from shard.source import DocumentsSnapshot

# How far a part may be denser among the hits than it is among all documents, before it is asked for more.
_ABOVE_SHARE, _SPARE = 2.0, 2
# One search for both parts looks at so many times the usual candidates at most, and at so many more of a part than are needed.
_BROADER, _HEADROOM = 2.0, 1.3
_FORGETTING, _DENSEST = 0.05, 10.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows that have a vector of the searched model, those that have one of the other model, and those that have only that.
    Of one state."""

    native: Matches
    other: Matches
    lacking: Matches

    def __len__(self) -> int:
        return len(self.native) + len(self.lacking)


class KeptParts:
    """The parts of the last state that was asked for: searches outnumber changes."""

    def __init__(self, model: int, other: int) -> None:
        self._model = model
        self._other = other
        self._kept: Parts | None = None

    def of(self, snapshot: DocumentsSnapshot) -> Parts:
        native, other = snapshot.rows_with(self._model), snapshot.rows_with(self._other)
        kept = self._kept
        if kept is None or not (kept.native.is_same(native) and kept.other.is_same(other)):
            kept = self._kept = Parts(native, other, other - native)
        return kept


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
    """Asks both parts. Queries come joined. `parts` tells them in the state that is searched."""

    def __init__(
        self, whole: Finder, own: PartFinder, other: PartFinder, parts: Callable[[], Parts], spaces: Spaces
    ) -> None:
        self._whole = whole
        self._own = own
        self._other = other
        self._parts = parts
        self._spaces = spaces

    @property
    def are_in_order(self) -> bool:
        return self._whole.are_in_order

    def match(self, condition: Filter) -> Matches:
        return self._whole.match(condition)

    def reading(self) -> AbstractContextManager[DocumentsSnapshot]:
        return self._whole.reading()

    def find(self, queries: FloatArray, hits: int, matches: Matches | None) -> list[Rows]:
        """Candidates for so many hits of each query, those of the own part first."""
        native, lacking = among(self._parts(), matches)
        own = self._own.find(self._spaces.own(queries), self._due(hits, native, lacking), native)
        if not len(lacking):
            return own
        other = self._other.find(self._spaces.other(queries), self._due(hits, lacking, native), lacking)
        return [np.concatenate(pair) for pair in zip(own, other, strict=True)]

    def _due(self, hits: int, part: Matches, rest: Matches) -> int:
        """With candidates that shall all be scored, nothing is left to chance."""
        return due_of(hits, len(part), len(part) + len(rest)) if self.are_in_order else hits


class SharedCandidates:
    """Asks one index that holds both parts: once, and again for a part of which too little came. Candidates come in the order
    of their supposed scores, part by part. `densities` are the index's, and are corrected."""

    are_in_order = True

    def __init__(
        self, index: IndexCandidates, parts: Callable[[], Parts], spaces: Spaces, densities: "Densities"
    ) -> None:
        self._index = index
        self._parts = parts
        self._spaces = spaces
        self._densities = densities

    def match(self, condition: Filter) -> Matches:
        return self._index.match(condition)

    def reading(self) -> AbstractContextManager[DocumentsSnapshot]:
        return self._index.reading()

    def find(self, queries: FloatArray, hits: int, matches: Matches | None) -> list[Rows]:
        """Candidates for so many hits of each query."""
        queries, parts = self._spaces.own(queries), among(self._parts(), matches)
        total = sum(map(len, parts))
        kinds = [
            _Kind(part, due_of(hits, len(part), total), len(part) / max(1, total), density)
            for part, density in zip(parts, self._densities.of_parts, strict=True)
        ]
        if matches is None:
            found = self._index.broadly(queries, hits, self._count(hits, kinds))
        else:
            found = self._index.find(queries, hits, matches)
        native = [kinds[0].rows.contains(rows) for rows in found]
        for number, kind in enumerate(kinds):
            masks = native if number == 0 else [~mask for mask in native]
            counts = [int(np.count_nonzero(mask)) for mask in masks]
            self._densities.learn(number, kind.share, sum(counts), sum(map(len, native)))
            enough = self._index.enough(kind.due, len(kind.rows))
            short = [place for place, count in enumerate(counts) if count < enough]
            if short:
                more = self._index.find(queries[short], kind.due, kind.rows, density=kind.density)
                for place, rows in zip(short, more, strict=True):
                    # What came of the other part stays.
                    others = found[place][~kind.rows.contains(found[place])]
                    found[place] = np.concatenate([others, rows])
        return found

    def _count(self, hits: int, kinds: "Sequence[_Kind]") -> int:
        """Candidates among which enough of both parts should be; of a part that is too thin for that, it is asked later."""
        usual = self._index.usual(hits)
        needed = [ceil(_HEADROOM * self._index.enough(kind.due, len(kind.rows)) / kind.fraction) for kind in kinds]
        return max([usual, *(count for count in needed if count <= _BROADER * usual)])


@dataclass(frozen=True, slots=True)
class _Kind:
    """`share` of all rows; `density`: how many times that share the candidates have of it, as was seen."""

    rows: Matches
    due: int
    share: float
    density: float

    @property
    def fraction(self) -> float:
        return max(min(1.0, self.share * self.density), 1e-9)


class Densities:
    """How much more of the candidates than of the documents is native, and projected: scores of projected vectors may be lower.
    Running averages, of one index; used by one thread."""

    def __init__(self) -> None:
        self.of_parts = [1.0, 1.0]

    def learn(self, part: int, share: float, seen: int, candidates: int) -> None:
        if share * candidates >= 1.0:
            ratio = min(seen / (share * candidates), _DENSEST)
            self.of_parts[part] += _FORGETTING * (ratio - self.of_parts[part])


def among(parts: Parts, matches: Matches | None) -> tuple[Matches, Matches]:
    """The rows of both parts that fulfil a filter."""
    if matches is None:
        return parts.native, parts.lacking
    return parts.native & matches, parts.lacking & matches


def due_of(hits: int, part: int, total: int) -> int:
    """The hits to look for in a part: more than its share. Where a part is denser than its share, around a query, it gives more
    candidates than it was asked for; where it is thinner, all of it that is not far from the query was among what the
    graph looked at. With candidates that shall all be scored, nothing is left to chance, and this is not asked."""
    return min(hits, ceil(_ABOVE_SHARE * hits * part / max(1, total)) + _SPARE)
