"""Compares queries with every stored vector, or with those of given rows.

Invariant: the result equals that of scoring all vectors in float64. Each block is first scored in float32, and only
rows that may still be among the best k, given a bound on float32's error, are scored exactly. A bound, not a fixed
shortlist: near-ties beyond any fixed length stay right.
The scan is not one snapshot: a document written meanwhile is seen as it was or as it is, once.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from kintsugi.ann.elements import F32Matrix, prepare
from kintsugi.ann.vector_index import Rows
from kintsugi.errors import DeadlineExceeded
from kintsugi.metrics import FloatArray, Metric, scores
from shard.rescore import NOTHING, Scored, best
from shard.source import DocumentSource, VectorSource

_F32_EPS = float(np.finfo(np.float32).eps)
# Vectors read at once when rows are given: about what the caches hold.
_BLOCK_ELEMENTS = 2**19

# Products of lengths within these, and of their elements, neither overflow float32 nor lose bits to underflow.
_SHORTEST, _LONGEST = 1e-12, 1e15


def _safe(lengths: FloatArray) -> FloatArray:
    return np.where((lengths > _SHORTEST) & (lengths < _LONGEST), lengths, np.nan)


class ExactScan:
    """Takes vectors block by block and keeps the best k of each query."""

    def __init__(self, metric: Metric, queries: FloatArray, k: int) -> None:
        self._metric = metric
        self._k = k
        self._exact_queries = queries.astype(np.float64)
        self._queries = prepare(metric, queries)
        self._lengths = _safe(np.linalg.norm(self._queries.astype(np.float64), axis=1))
        # Twice the textbook bound of a float32 sum of products, relative to the product of the lengths.
        self._error = 2 * (queries.shape[1] + 16) * _F32_EPS
        self._best = [NOTHING for _ in queries]

    def feed(self, rows: Rows, vectors: FloatArray) -> None:
        """Takes one block of rows and their stored vectors."""
        if not len(rows):
            return
        with np.errstate(all="ignore"):
            blocks = self._bounds(np.ascontiguousarray(vectors, dtype=np.float32))
        for place, (lower, upper) in enumerate(zip(*blocks, strict=True)):
            self._take(place, rows, vectors, lower, upper)

    def best(self) -> list[Scored]:
        """The best of all blocks so far, for each query."""
        return self._best

    def _bounds(self, block: F32Matrix) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bounds of the scores, queries x rows. Where float32 may overflow or underflow they are not
        numbers, which makes those rows be scored exactly."""
        lengths = _safe(np.sqrt(np.vecdot(block, block)).astype(np.float64))
        products = (self._queries @ block.T).astype(np.float64)
        own = self._lengths[:, np.newaxis]
        if self._metric is Metric.COSINE:
            approximate = products / lengths
            error = self._error * own
        elif self._metric is Metric.DOT:
            approximate = products
            error = self._error * own * lengths
        else:
            approximate = 2 * products - lengths**2 - own**2
            error = self._error * (own + lengths) ** 2
        return approximate - error, approximate + error

    def _take(self, place: int, rows: Rows, vectors: FloatArray, lower: FloatArray, upper: FloatArray) -> None:
        so_far = self._best[place]
        threshold = float(so_far.scores.min()) if len(so_far.rows) >= self._k else -np.inf
        if len(rows) > self._k:
            # What is not a number sorts last, as if above all, and must not become the threshold.
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
    return _best_of(source.all_vectors(model), ExactScan(metric, queries, k), is_late)


def exact_among(
    source: VectorSource,
    model: int,
    metric: Metric,
    queries: FloatArray,
    k: int,
    rows: Rows,
    is_late: Callable[[], bool] = lambda: False,
) -> list[Scored]:
    """Scans the vectors of these rows only."""
    return _best_of(_vectors_of(source, model, rows, queries.shape[1]), ExactScan(metric, queries, k), is_late)


def _best_of(blocks: Iterable[tuple[Rows, FloatArray]], scan: ExactScan, is_late: Callable[[], bool]) -> list[Scored]:
    for rows, vectors in blocks:
        if is_late():
            raise DeadlineExceeded("the deadline passed during an exact search")
        scan.feed(rows, vectors)
    return scan.best()


def _vectors_of(source: VectorSource, model: int, rows: Rows, dimension: int) -> Iterator[tuple[Rows, FloatArray]]:
    at_once = max(1, _BLOCK_ELEMENTS // dimension)
    for start in range(0, len(rows), at_once):
        block = rows[start : start + at_once]
        present, vectors = source.vectors(model, block)
        yield (block, vectors) if present.all() else (block[present], vectors[present])
