"""Turns candidate rows into ranked hits: exact float64 scores from stored vectors, ties broken by id.

Guarantees: a hit's score is that of its stored vector, whatever the encoding of the index; among equal scores the
smaller id comes first; rows that are gone are dropped. Knows nothing of queues or threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from kintsugi.ann.vector_index import Rows
from kintsugi.metrics import FloatArray, Metric, scores
from shard.reader import HitColumns
from shard.source import VectorSource

Scores = npt.NDArray[np.float64]

# Of fewer hits, the places tell too little about the order of all candidates.
_TELLING = 10
_FIRST_PER_HIT = 2.5


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with their exact scores. As a result, in no order: the best k of a query, and whatever ties with the last of
    them."""

    rows: Rows
    scores: Scores

    def followed_by(self, others: "Scored") -> "Scored":
        if not len(self.rows):
            return others
        return Scored(np.concatenate([self.rows, others.rows]), np.concatenate([self.scores, others.scores]))

    def is_unsettled(self, k: int) -> bool:
        """Whether one of the best k is in the second half."""
        count = len(self.scores)
        if count <= k:
            return True
        least = np.partition(self.scores, count - k)[count - k]
        return bool(self.scores[-(count // 2) :].max() >= least)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The hits of one query, best first. `places` points into the columns of the batch."""

    places: npt.NDArray[np.intp]
    scores: Scores

    def reaching(self, min_score: float) -> "Ranked":
        """Those of at least this score."""
        count = int(np.count_nonzero(self.scores >= min_score))
        return Ranked(self.places[:count], self.scores[:count])


NOTHING = Scored(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.float64))


def best(rows: Rows, values: Scores, k: int) -> Scored:
    """Keeps the k best, and all that score as the k-th: which of those are hits is for their ids to decide."""
    if len(rows) > k:
        kept = values >= np.partition(values, len(values) - k)[len(values) - k]
        return Scored(rows[kept], values[kept])
    return Scored(rows, values)


def rescore(
    source: VectorSource, model: int, metric: Metric, queries: FloatArray, candidates: Sequence[Rows], k: int
) -> list[Scored]:
    """Scores each query's candidates with their stored vectors, all read at once."""
    scored = _scored(source, model, metric, queries, candidates)
    return [best(one.rows, one.scores, k) for one in scored]


def rescore_in_order(
    source: VectorSource, model: int, metric: Metric, queries: FloatArray, candidates: Sequence[Rows], k: int
) -> list[Scored]:
    """Scores candidates that come in the order of their supposed scores: some of them, then twice as many, for as long as one
    of the best k, or of the best ten, is in the second half. How far that order can be trusted is thus seen from itself: if it
    told nothing, ten hits would all be in the first half once in a thousand times."""
    telling = max(k, _TELLING)
    start, end = 0, ceil(_FIRST_PER_HIT * telling)
    scored = [NOTHING for _ in candidates]
    places = list(range(len(candidates)))
    while places:
        pieces = [candidates[place][start:end] for place in places]
        fresh = _scored(source, model, metric, queries[places] if start else queries, pieces)
        for place, one in zip(places, fresh, strict=True):
            scored[place] = scored[place].followed_by(one)
        places = [place for place in places if len(candidates[place]) > end and scored[place].is_unsettled(telling)]
        start, end = end, 2 * end
    return [best(one.rows, one.scores, k) for one in scored]


def _scored(
    source: VectorSource, model: int, metric: Metric, queries: FloatArray, candidates: Sequence[Rows]
) -> list[Scored]:
    """Those of the candidates that are there, in their order."""
    if len(candidates) == 1:
        # No two candidates are the same, so they need no sorting out.
        places, rows = np.arange(len(candidates[0])), candidates[0]
    else:
        rows, places = np.unique(np.concatenate([*candidates, NOTHING.rows]), return_inverse=True)
    if not len(rows):
        return [NOTHING for _ in candidates]
    present, stored = source.vectors(model, rows)
    all_present = bool(present.all())
    scored: list[Scored] = []
    start = 0
    for query, found in zip(queries, candidates, strict=True):
        mine = places[start : start + len(found)]
        start += len(found)
        if not all_present:
            mine = mine[present[mine]]
        # Widened to float64 query by query: that of a whole batch would not fit the caches.
        scored.append(Scored(rows[mine], scores(metric, query, stored[mine])))
    return scored


def rows_of(scored: Sequence[Scored]) -> Rows:
    """All their rows, ascending, each once."""
    return np.sort(scored[0].rows) if len(scored) == 1 else np.unique(np.concatenate([one.rows for one in scored]))


def rank(scored: Scored, columns: HitColumns, k: int) -> Ranked:
    """Orders the rows that the columns still hold by score and id, and cuts to k. The columns' rows ascend."""
    if not len(columns.rows):
        return Ranked(np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float64))
    places = np.minimum(np.searchsorted(columns.rows, scored.rows), len(columns.rows) - 1)
    there = columns.rows[places] == scored.rows
    places, values = places[there], scored.scores[there]
    ranking = np.argsort(-values, kind="stable")
    ordered = values[ranking]
    if (ordered[1:] == ordered[:-1]).any():
        ids = columns.ids
        ranking = np.array(sorted(range(len(places)), key=lambda index: (-values[index], ids[int(places[index])])))
    ranking = ranking[:k]
    return Ranked(places[ranking], values[ranking])
