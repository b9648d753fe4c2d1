"""The exact neighbours of queries by brute force, and the recall of other answers against them. Pure numpy.

Recall counts an answer as right when it scores no less than the last true neighbour: of documents that tie, any will do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import Metric, scores

F32Matrix = npt.NDArray[np.float32]
IdMatrix = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

_BLOCK = 50_000
_SCORES_AT_ONCE = 2**25
# f32 products choose so many candidates per hit, f64 scores decide among them.
_CANDIDATES_PER_HIT = 3


@dataclass(frozen=True, slots=True)
class Truth:
    """For each query its best rows, best first, and their scores."""

    rows: IdMatrix
    scores: Scores

    def recalls(self, found: Sequence[Scores]) -> Scores:
        """Per query the part of the true neighbours that answers with these exact scores hold."""
        k = self.scores.shape[1]
        right = [np.count_nonzero(mine >= true[-1]) for mine, true in zip(found, self.scores, strict=True)]
        shares: Scores = np.array(right, dtype=np.float64) / k
        return shares.clip(max=1.0)


def exact_top_k(metric: Metric, vectors: F32Matrix, queries: F32Matrix, k: int) -> Truth:
    """The k best rows for each query, fewer when there are fewer; of rows that tie, the lower."""
    wanted = min(len(vectors), _CANDIDATES_PER_HIT * k)
    best_rows = np.empty((len(queries), 0), dtype=np.int64)
    best_values = np.empty((len(queries), 0), dtype=np.float32)
    block = max(1, min(_BLOCK, _SCORES_AT_ONCE // max(1, len(queries))))
    for start in range(0, len(vectors), block):
        values = _nearness(metric, queries, np.asarray(vectors[start : start + block]))
        kept = np.argpartition(-values, min(wanted, values.shape[1]) - 1, axis=1)[:, :wanted]
        best_rows = np.concatenate([best_rows, kept + start], axis=1)
        best_values = np.concatenate([best_values, np.take_along_axis(values, kept, axis=1)], axis=1)
        order = np.argsort(-best_values, axis=1)[:, :wanted]
        best_rows = np.take_along_axis(best_rows, order, axis=1)
        best_values = np.take_along_axis(best_values, order, axis=1)
    rows = np.empty((len(queries), min(k, len(vectors))), dtype=np.int64)
    exact_scores = np.empty(rows.shape, dtype=np.float64)
    for place, (query, candidates) in enumerate(zip(queries, best_rows, strict=True)):
        exact = scores(metric, query, np.asarray(vectors[candidates]))
        chosen = np.lexsort((candidates, -exact))[: rows.shape[1]]
        rows[place], exact_scores[place] = candidates[chosen], exact[chosen]
    return Truth(rows, exact_scores)


def _nearness(metric: Metric, queries: F32Matrix, block: F32Matrix) -> F32Matrix:
    """Something that orders the block's rows for each query as the metric does."""
    products: F32Matrix = queries @ block.T
    if metric is Metric.DOT:
        return products
    squares = np.einsum("ij,ij->i", block, block)
    nearness = products / np.sqrt(squares) if metric is Metric.COSINE else 2 * products - squares
    return np.asarray(nearness, dtype=np.float32)


def best(exact: Scores, k: int) -> Scores:
    """The k best of some scores, in no order."""
    return exact if len(exact) <= k else np.partition(exact, len(exact) - k)[-k:]
