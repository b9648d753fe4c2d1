"""What the recall on a sample says about the whole collection. Pure.

The more vectors there are, the closer a query's true neighbours lie to the rest, while the errors of codes and graph
stay as they are: the loss, 1 - recall, grows with the number of vectors. Two sizes of the sample tell how fast:
loss(N) = loss(n) * (N / n) ** e, with e = log(loss(n) / loss(m)) / log(n / m).

On real embeddings e falls as the numbers grow: over the next factor of four it was 0.2 to 1.0 times what it had been,
typically 0.6 times (decision 28). So the expected recall goes on with 0.6 times the exponent that was seen. The worst case
goes on with all of it, with no less than is usual, and from the upper end of the loss's sampling error. Both extrapolate;
neither is a promise.
"""

from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt

_USUAL_EXPONENT, _MOST_EXPONENT = 0.4, 1.0
# What is left of an exponent over the next numbers.
_DAMPED = 0.6
# One-sided 95 %.
_ERRORS = 1.645


@dataclass(frozen=True, slots=True)
class Measured:
    """Recall over some queries among `vectors` vectors, with its standard error."""

    vectors: int
    recall: float
    error: float

    @classmethod
    def of(cls, vectors: int, by_query: npt.NDArray[np.float64]) -> "Measured":
        """The error is never 0: that no query lost a neighbour does not mean that none ever will."""
        count = len(by_query)
        spread = float(by_query.std(ddof=1)) if count > 1 else 1.0
        return cls(vectors, float(by_query.mean()), max(spread / count**0.5, 0.1 / count))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of the recall of the whole collection."""

    expected: float
    at_worst: float


def estimate(measured: Measured, smaller: Measured | None, total: int) -> Estimate:
    """`smaller` is the same on a part of the sample. It may be None when the sample is everything: then nothing is
    extrapolated, and what was measured is both."""
    if total <= measured.vectors:
        return Estimate(measured.recall, measured.recall)
    assert smaller is not None
    growth = total / measured.vectors
    loss = 1 - measured.recall
    exponent = _exponent(smaller, measured)
    worst_loss = loss + _ERRORS * measured.error
    return Estimate(
        expected=1 - min(1.0, loss * growth ** (_DAMPED * exponent)),
        at_worst=max(0.0, 1 - worst_loss * growth ** max(exponent, _USUAL_EXPONENT)),
    )


def _exponent(smaller: Measured, larger: Measured) -> float:
    before, after = 1 - smaller.recall, 1 - larger.recall
    if before <= 0.0 or after <= 0.0:
        # Nothing to see a growth in.
        return _USUAL_EXPONENT
    seen = log(after / before) / log(larger.vectors / smaller.vectors)
    return min(max(seen, 0.0), _MOST_EXPONENT)
