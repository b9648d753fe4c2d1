"""Turns candidate rows into ranked hits: exact float64 scores from stored vectors, ties broken by id.

Guarantees: a hit's score is that of its stored vector, whatever the encoding of the index; among equal scores the
smaller id comes first; rows that are gone are dropped. Knows nothing of queues or threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi.ann.settling import first_scored, is_unsettled
from kintsugi.ann.vector_index import Rows
from kintsugi.metrics import FloatArray, Metric, scores
from shard.reader import HitColumns
from shard.source import VectorSource
from shard.storage_faults import StorageCorrupt

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with their exact scores: the best k of a query, and whatever ties with the last of them."""

    rows: Rows
    scores: Scores


@dataclass(frozen=True, slots=True)
class Ranked:
    """The hits of one query, best first. `places` points into the columns of the batch."""

    places: list[int]
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
    """Scores each query's candidates with their stored vectors. The result is best first."""
    # One query after the other: the vectors of a whole batch would not fit the caches, and hardly share rows.
    scored: list[Scored] = []
    for query, rows in zip(queries, candidates, strict=True):
        there, values = _score(source, model, metric, query, rows)
        scored.append(first(there, values, np.argsort(-values), k))
    return scored


def rescore_in_order(
    source: VectorSource, model: int, metric: Metric, queries: FloatArray, candidates: Sequence[Rows], k: int
) -> list[Scored]:
    """Scores candidates that come in the order of their supposed scores, until it is settled which are the best k. The result
    is best first."""
    scored: list[Scored] = []
    for query, ordered in zip(queries, candidates, strict=True):
        end = first_scored(k)
        rows, values = _score(source, model, metric, query, ordered[:end])
        order = np.argsort(-values)
        while end < len(ordered) and is_unsettled(values, k, order):
            more = _score(source, model, metric, query, ordered[end : 2 * end])
            rows, values = np.concatenate([rows, more[0]]), np.concatenate([values, more[1]])
            order = np.argsort(-values)
            end *= 2
        scored.append(first(rows, values, order, k))
    return scored


def _score(source: VectorSource, model: int, metric: Metric, query: FloatArray, rows: Rows) -> tuple[Rows, Scores]:
    """Those of the rows that are there, in their order, with their scores."""
    if not len(rows):
        return NOTHING.rows, NOTHING.scores
    present, stored = source.vectors(model, rows)
    if not present.all():
        rows, stored = rows[present], stored[present]
    return rows, scores(metric, query, stored)


def first(rows: Rows, values: Scores, order: npt.NDArray[np.intp], k: int) -> Scored:
    """The first k in the order of their scores, and all that score as the k-th."""
    end = min(k, len(order))
    while 0 < end < len(order) and values[order[end]] == values[order[end - 1]]:
        end += 1
    order = order[:end]
    return Scored(rows[order], values[order])


def rows_of(scored: Sequence[Scored]) -> Rows:
    """All their rows, one query after the other."""
    return scored[0].rows if len(scored) == 1 else np.concatenate([one.rows for one in scored])


def rank(scored: Sequence[Scored], columns: HitColumns, k: int) -> list[Ranked]:
    """Puts what is best first already, but for ties, in the order of scores and ids, and cuts to k. The columns are those of
    rows_of, in the state of the documents that the rows were scored in."""
    ranked: list[Ranked] = []
    start = 0
    for one in scored:
        # Python's own sets and lists: for a handful of numbers they take less time than numpy.
        values = one.scores.tolist()
        end = start + len(values)
        places = list(range(start, end))
        if len(set(values)) < len(values):
            negated = [-value for value in values]
            places = [place for *_, place in sorted(zip(negated, columns.ids[start:end], places, strict=True))]
        ranked.append(Ranked(places[:k], one.scores[:k]))
        start = end
    if start != len(columns.rows):
        raise StorageCorrupt(f"{start - len(columns.rows)} vectors have no document")
    return ranked
