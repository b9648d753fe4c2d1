"""Makes the scores of two spaces comparable, query by query, from anchors: documents embedded in both. Pure.

For one query, the anchors' scores in the other space and in the native one are two samples of the same documents. Mapping
one onto the other by rank (quantile matching) keeps the order of the documents within their space, and puts as many of
each space in front as deserve it. Least squares, which shrinks scores towards their mean, puts documents of the other
space behind; matching mean and deviation is close, but bends where the distributions differ (decision 0030 has the figures).
Calibration may hurt where raw scores are comparable already, as those of mapped vectors may be: `choose` decides by held-out
queries.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

MIN_ANCHORS = 50


class Calibration(StrEnum):
    """How scores of another space become scores of the native one."""

    RAW = "raw"
    MOMENTS = "moments"
    QUANTILES = "quantiles"


def _raw(_other: Scores, _native: Scores, values: Scores) -> Scores:
    return values


def _moments(other: Scores, native: Scores, values: Scores) -> Scores:
    spread = other.std()
    if spread == 0.0:
        return np.full_like(values, native.mean())
    return np.asarray((values - other.mean()) * (native.std() / spread) + native.mean())


def _quantiles(other: Scores, native: Scores, values: Scores) -> Scores:
    from_scores, to_scores = np.sort(other), np.sort(native)
    mapped = np.interp(values, from_scores, to_scores)
    spread = other.std()
    slope = native.std() / spread if spread else 0.0
    # Beyond the anchors, in a straight line: the best documents are better than every anchor.
    above, below = values > from_scores[-1], values < from_scores[0]
    mapped[above] = to_scores[-1] + (values[above] - from_scores[-1]) * slope
    mapped[below] = to_scores[0] + (values[below] - from_scores[0]) * slope
    return np.asarray(mapped)


_CALIBRATIONS: dict[Calibration, Callable[[Scores, Scores, Scores], Scores]] = {
    Calibration.RAW: _raw,
    Calibration.MOMENTS: _moments,
    Calibration.QUANTILES: _quantiles,
}


def calibrate(how: Calibration, other: Scores, native: Scores, values: Scores) -> Scores:
    """Maps `values`, one query's scores in the other space, to the scale of the native one. `other` and `native`: the same
    query's scores of the anchors in both spaces, in one order."""
    if len(other) != len(native) or len(other) < MIN_ANCHORS:
        raise ValueError(
            f"anchors have {len(other)} and {len(native)} scores, must have as many of both, at least {MIN_ANCHORS}"
        )
    return _CALIBRATIONS[how](other, native, values)


def choose(qualities: Mapping[Calibration, npt.NDArray[np.float64]], *, native_spaces: bool) -> Calibration:
    """The calibration to use, by the quality that each gave on the same held-out queries. Between two native spaces raw scores
    are never taken; elsewhere a calibration must beat them by more than one standard error of the paired difference."""
    calibrated = max(
        (how for how in qualities if how is not Calibration.RAW), key=lambda how: float(qualities[how].mean())
    )
    if native_spaces:
        return calibrated
    difference = qualities[calibrated] - qualities[Calibration.RAW]
    error = float(difference.std() / np.sqrt(len(difference)))
    return calibrated if float(difference.mean()) > error else Calibration.RAW
