"""Documents with attributes whose filters have a chosen selectivity, and a chosen correlation with the query. Pure numpy.

Correlation is by query-similarity rank. There are some anchors, each a query with a few close relatives. For each anchor,
documents are ranked by their similarity to it, and the ranks are blurred: each is multiplied by a lognormal number and
the products are ranked anew, so that a filter is no sharp edge around the query. `near_A` is that place, 0 for the most
similar; `far_A` the same from the other end. A filter of selectivity s and its matches:

    uncorrelated   luck within a window of s N           any documents, another window for each query
    string         share = "s"                           any documents, the same for all queries
    positive       near_A < s N                          mostly those most similar to the query
    negative       far_A < s N                           mostly those least similar to the query

Each has s N matches exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import Metric
from kintsugi.tuning.truth import F32Matrix, IdMatrix, exact_top_k

# Of the logarithms: two thirds of the ranks move by less than a factor of 1.65.
_BLUR = 0.5
# A relative of an anchor has about a cosine of 0.995 to it.
_RELATIVE = 0.1

Ranks = npt.NDArray[np.int64]


class Correlation(StrEnum):
    UNCORRELATED = "uncorrelated"
    STRING = "string"
    POSITIVE = "positive"
    NEGATIVE = "negative"


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of filter. `selectivity` is the part of the documents that fulfil it."""

    selectivity: float
    correlation: Correlation

    @property
    def name(self) -> str:
        return f"{self.share} {self.correlation}"

    @property
    def share(self) -> str:
        return f"{self.selectivity:.2%}"


SELECTIVITIES = (0.0001, 0.001, 0.01, 0.1, 0.5)
CELLS = tuple(Cell(share, correlation) for share in SELECTIVITIES for correlation in Correlation)


class FilteredSet:
    """The vectors, the queries in order of their anchors, and where every document stands."""

    def __init__(self, vectors: F32Matrix, anchors: F32Matrix, relatives: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        count = len(vectors)
        self.vectors = vectors
        self.anchor_of = np.repeat(np.arange(len(anchors)), relatives)
        self.queries = _relatives(anchors[self.anchor_of], anchors, random)
        self._luck = random.permutation(count)
        self._share = random.permutation(count)
        places = [_blurred(anchor, vectors, random) for anchor in anchors]
        self._near: list[Ranks] = [near for near, _ in places]
        self._far: list[Ranks] = [far for _, far in places]

    def matches(self, cell: Cell, query: int) -> npt.NDArray[np.bool_]:
        """Which documents fulfil the filter of that query."""
        wanted, anchor = self._wanted(cell), self.anchor_of[query]
        if cell.correlation is Correlation.UNCORRELATED:
            start = self._window(cell, query)
            found: npt.NDArray[np.bool_] = (self._luck >= start) & (self._luck < start + wanted)
            return found
        place = {
            Correlation.STRING: self._share,
            Correlation.POSITIVE: self._near[anchor],
            Correlation.NEGATIVE: self._far[anchor],
        }[cell.correlation]
        return np.asarray(place < wanted)

    def filter(self, cell: Cell, query: int) -> dict[str, Any]:
        """The same, for a search."""
        wanted, anchor = self._wanted(cell), self.anchor_of[query]
        if cell.correlation is Correlation.UNCORRELATED:
            start = self._window(cell, query)
            return {"luck": {"gte": start, "lt": start + wanted}}
        if cell.correlation is Correlation.STRING:
            return {"share": cell.share}
        side = "near" if cell.correlation is Correlation.POSITIVE else "far"
        return {f"{side}_{anchor}": {"lt": wanted}}

    def attributes(self, document: int) -> dict[str, Any]:
        told: dict[str, Any] = {"luck": int(self._luck[document])}
        for anchor, (near, far) in enumerate(zip(self._near, self._far, strict=True)):
            told[f"near_{anchor}"] = int(near[document])
            told[f"far_{anchor}"] = int(far[document])
        told["share"] = [
            cell.share
            for cell in (Cell(share, Correlation.STRING) for share in SELECTIVITIES)
            if self._share[document] < self._wanted(cell)
        ]
        return told

    def truth(self, cell: Cell, k: int) -> Iterator[IdMatrix]:
        """For each query the ids of its k best matches, fewer when there are fewer."""
        for place, query in enumerate(self.queries):
            rows = np.flatnonzero(self.matches(cell, place))
            best = exact_top_k(Metric.COSINE, self.vectors[rows], query[np.newaxis], k)
            yield rows[best.rows[0]]

    def _wanted(self, cell: Cell) -> int:
        return max(1, round(cell.selectivity * len(self.vectors)))

    def _window(self, cell: Cell, query: int) -> int:
        room = len(self.vectors) - self._wanted(cell)
        return room * query // max(1, len(self.queries) - 1)


def _relatives(queries: F32Matrix, anchors: F32Matrix, random: np.random.Generator) -> F32Matrix:
    """Moves each query a little towards some anchor, which keeps it where queries are."""
    towards = anchors[random.permutation(len(queries)) % len(anchors)]
    moved = queries + _RELATIVE * towards
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), dtype=np.float32)


def _blurred(anchor: F32Matrix, vectors: F32Matrix, random: np.random.Generator) -> tuple[Ranks, Ranks]:
    """The blurred places from the near and from the far end."""
    count = len(vectors)
    near = _places(-(vectors @ anchor))
    factors = np.exp(_BLUR * random.standard_normal((2, count)))
    return _places((near + 1) * factors[0]), _places((count - near) * factors[1])


def _places(values: npt.NDArray[Any]) -> Ranks:
    """The place of each value in ascending order."""
    places = np.empty(len(values), dtype=np.int64)
    places[np.argsort(values, kind="stable")] = np.arange(len(values))
    return places
