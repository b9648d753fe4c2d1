"""Turns measurements into figures: recall, percentiles, medians with their spread, ratios. Pure.

A figure that is compared is always a median of rounds with the lowest and highest round beside it: on a shared machine
one number says little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

IdMatrix = npt.NDArray[np.int64]

# Rows of an IdMatrix: a place without a hit, and every place of a query that was never answered.
NO_HIT = -1
NOT_ASKED = -2


@dataclass(frozen=True, slots=True)
class Spread:
    """A median of rounds, and the lowest and highest of them."""

    median: float
    low: float
    high: float


def recall(found: IdMatrix, truth: IdMatrix) -> float:
    """The part of the true neighbours that was found, over the queries that were answered; NaN when none was."""
    asked = (found != NOT_ASKED).all(axis=1)
    if not asked.any():
        return float("nan")
    hits = [len(np.intersect1d(mine, true)) for mine, true in zip(found[asked], truth[asked], strict=True)]
    return sum(hits) / (len(hits) * int(truth.shape[1]))


def percentile(values: npt.ArrayLike, percent: float) -> float:
    """The nearest-rank percentile: a value that was really measured, never one between two. NaN of nothing."""
    if not 0 < percent <= 100:
        raise ValueError(f"percent is {percent}, must be above 0 and at most 100")
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if not len(ordered):
        return float("nan")
    return float(ordered[ceil(percent / 100 * len(ordered)) - 1])


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError when there are no rounds."""
    if not values:
        raise ValueError("values has 0 rounds, must have at least 1")
    return Spread(float(np.median(values)), float(min(values)), float(max(values)))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours per theirs, round by round: what disturbs a whole round disturbs both sides of its ratio."""
    if len(ours) != len(theirs):
        raise ValueError(f"ours has {len(ours)} rounds, theirs has {len(theirs)}, must be as many")
    return spread([mine / other if other else float("nan") for mine, other in zip(ours, theirs, strict=True)])


def merge_top_k(ids: Sequence[IdMatrix], scores: Sequence[npt.NDArray[np.float64]], k: int) -> IdMatrix:
    """The best k of each query out of the answers of all partitions. A query that one partition did not answer counts
    as not asked."""
    all_ids, all_scores = np.concatenate(ids, axis=1), np.concatenate(scores, axis=1)
    order = np.lexsort((all_ids, -all_scores), axis=1)[:, :k]
    merged: IdMatrix = np.take_along_axis(all_ids, order, axis=1)
    merged[(all_ids == NOT_ASKED).any(axis=1)] = NOT_ASKED
    return merged
