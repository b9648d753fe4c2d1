"""The core of a search across models: one ranking out of scores in two spaces. Pure numpy; knows no index and no storage.

Outline: a document that has a vector of the searched model is scored by it. The others are scored in another space, and their
scores are brought to the scale of the first: query by query, by what the anchors, documents with a vector in both spaces,
score in each. Then the best of both are the hits.

Guarantees: scores of the searched model are untouched; the order of the others among themselves stays; of equal scores that
may be hits, all are kept, for ids to decide.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kintsugi.ann.elements import F32Matrix, prepare
from kintsugi.metrics import FloatArray, Metric
from kintsugi.projections.calibration import Calibration, calibrate
from kintsugi.projections.projection import Projection
from shard.rescore import Scored, Scores, first

ScoreMatrix = npt.NDArray[np.float64]


class AnchorScores:
    """Scores queries against the anchors of one space, many queries in one product."""

    def __init__(self, metric: Metric, anchors: F32Matrix) -> None:
        self._metric = metric
        # Held as the product takes them: columns.
        self._columns = np.ascontiguousarray(prepare(metric, anchors).T)
        self._squares = np.einsum("ij,ij->j", self._columns, self._columns, dtype=np.float64)

    def of(self, queries: FloatArray) -> ScoreMatrix:
        """Queries x anchors."""
        prepared = prepare(self._metric, queries)
        products = (prepared @ self._columns).astype(np.float64)
        if self._metric is not Metric.L2:
            return products
        lengths = np.einsum("ij,ij->i", prepared, prepared, dtype=np.float64)
        return np.asarray(2 * products - self._squares - lengths[:, np.newaxis])


class Scale:
    """Brings scores of another space to that of the searched model. Made once per upgrade and used by any thread."""

    def __init__(self, how: Calibration, own: AnchorScores, other: AnchorScores) -> None:
        self._how = how
        self._own = own
        self._other = other

    def of(self, own_queries: FloatArray, other_queries: FloatArray) -> "ScaleOfQueries":
        """For a batch of queries, as they are in both spaces."""
        return ScaleOfQueries(self._how, self._own.of(own_queries), self._other.of(other_queries))


class ScaleOfQueries:
    """The scale of each query of a batch."""

    def __init__(self, how: Calibration, native: ScoreMatrix, other: ScoreMatrix) -> None:
        self._how = how
        self._native = native
        self._other = other

    def calibrated(self, place: int, scored: Scored) -> Scored:
        """What one query found in the other space, on the scale of the searched model. It is best first before and after: no
        calibration changes the order."""
        if not len(scored.rows):
            return scored
        return Scored(scored.rows, calibrate(self._how, self._other[place], self._native[place], scored.scores))


def merged(own: Sequence[Scored], other: Sequence[Scored], k: int) -> list[Scored]:
    """For each query the best k of both, and all that score as the k-th; best first. Their rows are disjoint."""
    return [_merged(mine, theirs, k) for mine, theirs in zip(own, other, strict=True)]


def _merged(own: Scored, other: Scored, k: int) -> Scored:
    if not len(other.rows):
        return own
    rows: npt.NDArray[np.uint64] = np.concatenate([own.rows, other.rows])
    values: Scores = np.concatenate([own.scores, other.scores])
    return first(rows, values, np.argsort(-values, kind="stable"), k)


class Spaces:
    """Queries of both spaces side by side in one matrix, so that they can be batched, cut and passed on together."""

    def __init__(self, own_dimension: int) -> None:
        self._own = own_dimension

    @staticmethod
    def joined(own: FloatArray, other: FloatArray) -> FloatArray:
        return np.concatenate([own, other], axis=1, dtype=np.float32)

    def own(self, joined: FloatArray) -> FloatArray:
        return np.ascontiguousarray(joined[:, : self._own])

    def other(self, joined: FloatArray) -> FloatArray:
        return np.ascontiguousarray(joined[:, self._own :])


def bridged(bridge: Projection | None, own: FloatArray, given: FloatArray | None) -> FloatArray | None:
    """The queries in the other space: those that the client gave, else the projected ones. None: there is no way."""
    if given is not None:
        return given
    return None if bridge is None else bridge.apply(own)
