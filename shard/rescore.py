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

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with their exact scores, in no order: the best k of a query, and whatever ties with the last of them."""

    rows: Rows
    scores: Scores


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
    if len(rows) <= k:
        return Scored(rows, values)
    places = np.flatnonzero(values >= np.partition(values, len(values) - k)[len(values) - k])
    return Scored(rows[places], values[places])


def rescore(
    source: VectorSource, model: int, metric: Metric, queries: FloatArray, candidates: Sequence[Rows], k: int
) -> list[Scored]:
    """Scores each query's candidates with their stored vectors."""
    # One query after the other: the vectors of a whole batch would not fit the caches, and hardly share rows.
    return [
        best(*_score(source, model, metric, query, rows), k) for query, rows in zip(queries, candidates, strict=True)
    ]


def rescore_in_order(
    source: VectorSource, model: int, metric: Metric, queries: FloatArray, candidates: Sequence[Rows], k: int
) -> list[Scored]:
    """Scores candidates that come in the order of their supposed scores, until it is settled which are the best k."""
    scored: list[Scored] = []
    for query, ordered in zip(queries, candidates, strict=True):
        end = first_scored(k)
        rows, values = _score(source, model, metric, query, ordered[:end])
        while end < len(ordered) and is_unsettled(values, k):
            more = _score(source, model, metric, query, ordered[end : 2 * end])
            rows, values = np.concatenate([rows, more[0]]), np.concatenate([values, more[1]])
            end *= 2
        scored.append(best(rows, values, k))
    return scored


def _score(source: VectorSource, model: int, metric: Metric, query: FloatArray, rows: Rows) -> tuple[Rows, Scores]:
    """Those of the rows that are there, in their order, with their scores."""
    if not len(rows):
        return NOTHING.rows, NOTHING.scores
    present, stored = source.vectors(model, rows)
    if not present.all():
        rows, stored = rows[present], stored[present]
    return rows, scores(metric, query, stored)


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
