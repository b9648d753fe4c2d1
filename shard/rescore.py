"""Turns candidate rows into ranked hits: exact float64 scores from stored vectors, ties broken by id.

Guarantees: a hit's score is that of its stored vector, whatever the encoding of the index; among equal scores the
smaller id comes first; rows that are gone are dropped. Knows nothing of queues or threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    together = np.concatenate([*candidates, NOTHING.rows])
    rows, places = np.unique(together, return_inverse=True)
    if not len(rows):
        return [NOTHING for _ in candidates]
    present, stored = source.vectors(model, rows)
    scored: list[Scored] = []
    start = 0
    for query, found in zip(queries, candidates, strict=True):
        mine = places[start : start + len(found)]
        start += len(found)
        mine = mine[present[mine]]
        # Widened to float64 query by query: that of a whole batch would not fit the caches.
        scored.append(best(rows[mine], scores(metric, query, stored[mine]), k))
    return scored


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
