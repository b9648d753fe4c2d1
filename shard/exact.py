"""Compares queries with every stored vector.

Invariant: the result equals that of scoring all vectors in float64. Each block is first scored in float32, and only
rows that may still be among the best k, given a bound on float32's error, are scored exactly. A bound, not a fixed
shortlist: near-ties beyond any fixed length stay right.
The scan is not one snapshot: a document written meanwhile is seen as it was or as it is, once.
"""

from collections.abc import Callable

import numpy as np

from kintsugi.errors import DeadlineExceeded
from kintsugi.metrics import FloatArray, Metric, scores
from shard.calibration import F32Matrix
from shard.encoding import prepare
from shard.index import Rows
from shard.rescore import NOTHING, Scored, best
from shard.source import DocumentSource

_F32_EPS = float(np.finfo(np.float32).eps)


class ExactScan:
    """Takes vectors block by block and keeps the best k of each query."""

    def __init__(self, metric: Metric, queries: FloatArray, k: int) -> None:
        self._metric = metric
        self._k = k
        self._exact_queries = queries.astype(np.float64)
        self._queries = prepare(metric, queries)
        self._lengths = np.linalg.norm(self._queries.astype(np.float64), axis=1)
        # Twice the textbook bound of a float32 sum of products, relative to the product of the lengths.
        self._error = 2 * (queries.shape[1] + 16) * _F32_EPS
        self._best = [NOTHING for _ in queries]

    def feed(self, rows: Rows, vectors: FloatArray) -> None:
        """Takes one block of rows and their stored vectors."""
        if not len(rows):
            return
        # Overflow gives rows without a bound, and those are scored exactly.
        with np.errstate(over="ignore", invalid="ignore"):
            blocks = self._bounds(prepare(self._metric, vectors))
        for place, (lower, upper) in enumerate(zip(*blocks, strict=True)):
            self._take(place, rows, vectors, lower, upper)

    def best(self) -> list[Scored]:
        """The best of all blocks so far, for each query."""
        return self._best

    def _bounds(self, block: F32Matrix) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bounds of the scores, queries x rows."""
        products = (self._queries @ block.T).astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        if self._metric is Metric.L2:
            reach = self._lengths[:, np.newaxis] + lengths
            approximate = 2 * products - lengths**2 - self._lengths[:, np.newaxis] ** 2
            error = self._error * reach**2
        else:
            approximate = products
            error = self._error * self._lengths[:, np.newaxis] * lengths
        return approximate - error, approximate + error

    def _take(self, place: int, rows: Rows, vectors: FloatArray, lower: FloatArray, upper: FloatArray) -> None:
        so_far = self._best[place]
        threshold = float(so_far.scores.min()) if len(so_far.rows) >= self._k else -np.inf
        if len(rows) > self._k:
            # Bounds that are not numbers sort last, as if above all: replaced, lest they become the threshold.
            sure = np.where(np.isfinite(lower), lower, -np.inf)
            threshold = max(threshold, float(np.partition(sure, len(sure) - self._k)[len(sure) - self._k]))
        possible = np.flatnonzero(~(upper < threshold))
        if not len(possible):
            return
        values = scores(self._metric, self._exact_queries[place], vectors[possible].astype(np.float64))
        self._best[place] = best(
            np.concatenate([so_far.rows, rows[possible]]), np.concatenate([so_far.scores, values]), self._k
        )


def exact_search(
    source: DocumentSource, model: int, metric: Metric, queries: FloatArray, k: int, is_late: Callable[[], bool]
) -> list[Scored]:
    """Scans all vectors of a model. Raises DeadlineExceeded between blocks once it is late."""
    scan = ExactScan(metric, queries, k)
    for rows, vectors in source.all_vectors(model):
        if is_late():
            raise DeadlineExceeded("the deadline passed during an exact search")
        scan.feed(rows, vectors)
    return scan.best()
