"""What an upgrade costs searches of the new model now: an estimate from anchors, for a few recent searches.

    observe searches -> once per window: take samples -> score the anchors in both spaces -> compare -> keep

Anchors are documents with a vector in both spaces, so their scores after a full re-embedding are known:
1. The calibration error is how far calibrated scores are from native ones, in deviations of the native ones.
2. The estimated recall is how much of the ten best anchors stays when a part of the anchors, as large as the part of the documents
   that lack a new vector, takes calibrated scores.
Scores are calibrated by the one half of the anchors and judged on the other, both ways: nothing is judged by itself.

Guarantees: noting a search takes microseconds; a few searches are remembered, the oldest go first; the same searches give the same
figures. Does not know what fraction of the hits that clients saw was lost: anchors lie less densely than documents do.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import FloatArray
from kintsugi.projections.calibration import MIN_ANCHORS, Calibration, Scores, calibrate
from shard.crossing import Crossing
from shard.mixed_search import AnchorScores, ScoreMatrix, bridged
from shard.reservoir import Reservoir
from shard.search_call import SearchCall, ShardHits

# With 2000 anchors of 768 elements a tenth of a second of work per window.
REMEMBERED: Final = 64
_PER_WINDOW = 16
_HITS = 10
_SEED = 29


@dataclass(frozen=True, slots=True, eq=False)
class CrossProbe:
    """A search across models, to be looked at: one query, and by the other model when the client gave it."""

    query: FloatArray
    other: FloatArray | None


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over `searches`. `estimated_recall` is of the part of the documents that lacked a new vector then."""

    calibration_error: float
    estimated_recall: float
    searches: int


class QualitySamples:
    """Of the searches of one model in a replica."""

    def __init__(self, draw: np.random.Generator | None = None) -> None:
        self._drawn: Reservoir[CrossProbe] = Reservoir(_PER_WINDOW, draw)
        self._measuring = threading.Lock()
        self._recent: deque[CrossProbe] = deque(maxlen=REMEMBERED)
        # Replaced whole: metrics and status read it from other threads. None: not measured.
        self.quality: Quality | None = None

    def observe(self, call: SearchCall, hits: ShardHits) -> None:
        """Told every search that the index answered; those of other models' documents count."""
        if call.is_live and hits.other_model:
            self._drawn.observe(len(call.queries), lambda place: _probe(call, place))

    def measure(self, crossing: Crossing | None, lacking: float) -> None:
        """With the searches since it was last called, and some before. `lacking` is the part of the documents that lack a vector
        of the searched model. Without a crossing there is nothing to estimate any more. Blocks, with many anchors for a tenth of a
        second."""
        with self._measuring:
            self._recent.extend(self._drawn.take())
            if crossing is None:
                self._recent.clear()
            self.quality = measured(crossing, list(self._recent), lacking) if crossing and self._recent else None


def measured(crossing: Crossing, probes: Sequence[CrossProbe], lacking: float) -> Quality | None:
    """None when there is nothing to judge by: too few anchors, or no query in the other space."""
    own_anchors, other_anchors = crossing.anchors_own, crossing.anchors_other
    if own_anchors is None or other_anchors is None or len(own_anchors) < 2 * MIN_ANCHORS:
        return None
    queries = _in_both_spaces(crossing, probes)
    if queries is None:
        return None
    own, other = queries
    other_metric = crossing.model.metric if crossing.mapped else crossing.other_model.metric
    native = AnchorScores(crossing.model.metric, own_anchors).of(own)
    crossed = AnchorScores(other_metric, other_anchors).of(other)
    random = np.random.default_rng(_SEED)
    calibrated = _calibrated(crossing.calibration, native, crossed, random)
    spreads = native.std(axis=1)
    told = spreads > 0
    errors = np.abs(calibrated - native).mean(axis=1)[told] / spreads[told]
    recalls = _recalls(native, calibrated, lacking, random)
    return Quality(float(errors.mean()) if told.any() else 0.0, float(recalls.mean()), len(own))


def _in_both_spaces(crossing: Crossing, probes: Sequence[CrossProbe]) -> tuple[FloatArray, FloatArray] | None:
    if crossing.mapped:
        own = np.stack([probe.query for probe in probes])
        return own, own
    # A client may give the other vector although there is a bridge; then it is searched with.
    found: list[tuple[FloatArray, FloatArray]] = []
    for probe in probes:
        given = None if probe.other is None else probe.other[np.newaxis]
        other = bridged(crossing.bridge, probe.query[np.newaxis], given)
        if other is not None:
            found.append((probe.query, other[0]))
    return (np.stack([own for own, _ in found]), np.stack([other for _, other in found])) if found else None


def _calibrated(
    how: Calibration, native: ScoreMatrix, crossed: ScoreMatrix, random: np.random.Generator
) -> ScoreMatrix:
    """The anchors' scores as they are calibrated by those of the other half."""
    halves = np.array_split(random.permutation(native.shape[1]), 2)
    result = np.empty_like(native)
    for fit, judged in (halves, halves[::-1]):
        for place, (true, other) in enumerate(zip(native, crossed, strict=True)):
            result[place, judged] = calibrate(how, other[fit], true[fit], other[judged])
    return result


def _recalls(
    native: ScoreMatrix, calibrated: ScoreMatrix, lacking: float, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """For each query the part of its best anchors that stay among the best when some take their calibrated scores."""
    count = native.shape[1]
    crossed = round(lacking * count)
    found = np.empty(len(native))
    for place, (true, others) in enumerate(zip(native, calibrated, strict=True)):
        # The same draw whatever their number is: as it falls, the estimate does not jump about.
        chosen = random.permutation(count)[:crossed]
        mixed = true.copy()
        mixed[chosen] = others[chosen]
        found[place] = len(np.intersect1d(_best(true), _best(mixed))) / _HITS
    return found


def _best(scores: Scores) -> npt.NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")[:_HITS]


def _probe(call: SearchCall, place: int) -> CrossProbe:
    # Copies, so that a sample does not hold the message that it came in.
    other = None if call.other_queries is None else call.other_queries[place].copy()
    return CrossProbe(call.queries[place].copy(), other)
