"""Whether a projection has learned anything from its pairs: it finds more documents by their counterparts than chance. Pure.

Who recommends a projection and who takes one in ask here, so that nothing is recommended that is refused later.
"""

from dataclasses import dataclass

import numpy as np

from kintsugi.metrics import Metric
from kintsugi.projections.measures import top
from kintsugi.projections.projection import F32Matrix, Projection, prepared

# A document is found when its counterpart is among so many nearest ones.
NEAREST = 10
# So many deviations above what chance finds: for one time in a thousand.
_DEVIATIONS = 3.0


@dataclass(frozen=True, slots=True)
class Counterparts:
    """The part of the documents whose own counterpart is among the nearest of their projection, and what chance may find."""

    found: float
    by_chance: float

    @property
    def learned(self) -> bool:
        return self.found > self.by_chance


def counterparts(projection: Projection, metric: Metric, source: F32Matrix, target: F32Matrix) -> Counterparts:
    """`source` and `target` are the same documents in the two spaces. What cannot be mapped to finite elements is not found."""
    # Huge weights or elements overflow: what comes out is looked at, so no warning is needed.
    with np.errstate(over="ignore", invalid="ignore"):
        projected = projection.apply(source)
        nearest = top(metric, projected, prepared(metric, target), NEAREST)
    hit = (nearest == np.arange(len(source))[:, np.newaxis]).any(axis=1) & np.isfinite(projected).all(axis=1)
    part = min(1.0, NEAREST / len(source))
    return Counterparts(float(hit.mean()), part + _DEVIATIONS * float(np.sqrt(part * (1 - part) / len(source))))
