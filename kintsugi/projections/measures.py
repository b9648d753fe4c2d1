"""Measures retrieval: recall against true neighbours, nDCG against judgements, and differences with intervals. Pure.

Everything is per query, so that two systems can be compared on the same queries: paired differences are far less noisy
than the difference of two means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import FloatArray, Metric

Ranking = npt.NDArray[np.intp]
PerQuery = npt.NDArray[np.float64]

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries, and between which bounds it lies with 95 % confidence (bootstrap percentiles)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def score_matrix(metric: Metric, queries: FloatArray, documents: FloatArray) -> npt.NDArray[np.float32]:
    """Scores of all pairs, m x n, higher is better, in float32. For cosine both sides must be of unit length."""
    products = queries @ documents.T
    if metric is not Metric.L2:
        return np.asarray(products, dtype=np.float32)
    lengths = np.einsum("ij,ij->i", documents, documents)
    return np.asarray(2 * products - lengths - np.einsum("ij,ij->i", queries, queries)[:, np.newaxis], dtype=np.float32)


def top(metric: Metric, queries: FloatArray, documents: FloatArray, k: int, skip: Ranking | None = None) -> Ranking:
    """The places of the k best documents of each query, best first, m x min(k, n). `skip`: per query, the place of a document
    to leave out (the query itself), -1 for none."""
    k = min(k, len(documents) - (0 if skip is None else 1))
    found = np.empty((len(queries), k), dtype=np.intp)
    for start in range(0, len(queries), _BLOCK):
        values = score_matrix(metric, queries[start : start + _BLOCK], documents)
        if skip is not None:
            own = skip[start : start + _BLOCK]
            values[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
        found[start : start + _BLOCK] = best_places(values, k)
    return found


def best_places(values: FloatArray, k: int) -> Ranking:
    """The columns of the k highest values of each row, highest first, ties by column."""
    if k < values.shape[1]:
        contenders = np.sort(np.argpartition(-values, k - 1, axis=1)[:, :k], axis=1)
    else:
        contenders = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    order = np.argsort(-np.take_along_axis(values, contenders, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(contenders, order, axis=1), dtype=np.intp)


def recall(found: Ranking, truth: Ranking) -> PerQuery:
    """The part of each query's true neighbours that was found."""
    return np.array([np.isin(wanted, mine).mean() for mine, wanted in zip(found, truth, strict=True)])


def ndcg(found: Ranking, relevant: Sequence[frozenset[int]]) -> PerQuery:
    """Normalised discounted cumulative gain of each ranking, with relevance 0 or 1 (Jaervelin and Kekaelaeinen, 2002). Every
    query must have a relevant document."""
    discounts = 1.0 / np.log2(np.arange(2, found.shape[1] + 2))
    values = []
    for ranking, wanted in zip(found, relevant, strict=True):
        gains = np.array([place in wanted for place in ranking.tolist()])
        values.append(float(discounts[gains].sum() / discounts[: min(len(wanted), len(discounts))].sum()))
    return np.array(values)


def interval(values: PerQuery, seed: int = 0, draws: int = 2000) -> Interval:
    """The mean with its bootstrap interval. Given paired differences, the interval of the difference."""
    if not len(values):
        raise ValueError("values are empty, an interval needs at least 1")
    random = np.random.default_rng(seed)
    means = values[random.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high))
