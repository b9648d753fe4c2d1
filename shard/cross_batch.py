"""What searches of a crossing share, and how a batch of them is searched.

Made once per crossing, then used by the search thread and that of exact searches. Knows nothing of upgrades or queues.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from kintsugi.errors import FailedPrecondition, InvalidArgument, Unavailable
from kintsugi.metrics import FloatArray
from kintsugi.registry.records import Model
from shard.candidates import IndexCandidates
from shard.checkpoint import IndexedModel, IndexVersion
from shard.cross_candidates import (
    CrossCandidates,
    Densities,
    KeptParts,
    PartFinder,
    Parts,
    SharedCandidates,
    StoredPart,
)
from shard.crossing import Crossing
from shard.filter_plan import Costs
from shard.group_search import Finder
from shard.mixed_search import AnchorScores, Scale, Spaces, bridged
from shard.scoring import CrossScorer, FlaggedScorer, Scorer
from shard.search_call import SearchCall
from shard.search_times import StageClock
from shard.source import DocumentsSnapshot

# As many as a planner draws. Each costs every query two products: with 384 dimensions all of them take 0.1 ms. With 256, a tenth
# of the documents not yet migrated, up to 0.02 of the recall@10 of a query bridge is lost; with 512 up to 0.01.
ANCHORS_USED = 1000


@dataclass(slots=True)
class CostsOf:
    """What searches of the index in service cost: forgotten when another version takes its place."""

    costs: Costs = field(default_factory=Costs)
    number: int = 0

    def of(self, serving: IndexVersion) -> Costs:
        if self.number != serving.number:
            self.costs, self.number = Costs(), serving.number
        return self.costs


class CrossBatch:
    """How to search a crossing."""

    def __init__(self, crossing: Crossing) -> None:
        self.crossing = crossing
        self._model, self._other = _indexed(crossing.model), _indexed(crossing.other_model)
        # Projected vectors are in the space of the searched model.
        self._scored = self._model if crossing.mapped else self._other
        self._spaces = Spaces(crossing.model.dimension)
        self._scale = None if crossing.is_flat else self._scale_of(crossing)
        self._other_costs = CostsOf()
        self._densities = Densities()
        self._parts = KeptParts(self._model.number, self._other.number)

    def parts(self, snapshot: DocumentsSnapshot) -> Parts:
        return self._parts.of(snapshot)

    def queries(self, calls: Sequence[SearchCall]) -> FloatArray:
        """The queries of calls of one kind, as they are searched: joined with those in the other space, unless both parts are
        searched alike."""
        own = _concatenated([call.queries for call in calls])
        if self.crossing.is_flat:
            return own
        if self.crossing.mapped:
            return self._spaces.joined(own, own)
        given = [call.other_queries for call in calls if call.other_queries is not None]
        other = bridged(self.crossing.bridge, own, _concatenated(given) if given else None)
        if other is None:
            name = self.crossing.other_model.name
            raise FailedPrecondition(
                f"a search of model {self.crossing.model.name} needs a query vector of {name} as well",
                field="vectors",
                reason="BOTH_VECTORS_NEEDED",
            )
        if other.shape != (len(own), self._other.dimension):
            raise InvalidArgument(
                "other_queries", f"has shape {other.shape}", f"must be {len(own)} x {self._other.dimension}"
            )
        return self._spaces.joined(own, other)

    def scorer(self) -> Scorer:
        if self._scale is None:
            return FlaggedScorer(self._model)
        return CrossScorer(self._model, self._scored, self._spaces, self._scale)

    def finder(
        self,
        snapshot: DocumentsSnapshot,
        parts: Parts,
        own: IndexCandidates | None,
        call: SearchCall,
        clock: StageClock,
    ) -> Finder:
        """`own`: the index of the searched model, None while it is built."""
        if self.crossing.mapped:
            if own is None:
                raise building()
            if self._scale is None:
                return own
            if not own.are_in_order:
                return self._crossed(own, own, own, lambda: parts)
            return SharedCandidates(own, lambda: parts, self._spaces, self._densities)
        serving = self.crossing.other_serving()
        if serving is None:
            raise building()
        other = IndexCandidates(snapshot, self._other, serving, call, self._other_costs.of(serving), clock)
        if own is None:
            return self._crossed(other, StoredPart(snapshot, self._model), other, lambda: parts)
        return self._crossed(own, own, other, lambda: parts)

    def exact_finder(self, finder_of: Callable[[IndexedModel], Finder]) -> Finder:
        """`finder_of` compares with all stored vectors of a model."""
        own = finder_of(self._model)
        if self._scale is None:
            return own
        other = own if self.crossing.mapped else finder_of(self._other)

        def parts() -> Parts:
            with own.reading() as snapshot:
                return self.parts(snapshot)

        return self._crossed(own, own, other, parts)

    def _crossed(
        self, whole: Finder, own: PartFinder, other: PartFinder, parts: Callable[[], Parts]
    ) -> CrossCandidates:
        return CrossCandidates(whole, own, other, parts, self._spaces)

    def _scale_of(self, crossing: Crossing) -> Scale:
        assert crossing.anchors_own is not None, "what is calibrated has anchors"
        assert crossing.anchors_other is not None, "what is calibrated has anchors"
        used = slice(0, ANCHORS_USED)
        own = AnchorScores(self._model.metric, crossing.anchors_own[used])
        return Scale(crossing.calibration, own, AnchorScores(self._scored.metric, crossing.anchors_other[used]))


def building() -> Unavailable:
    return Unavailable("the index is not built yet", reason="INDEX_BUILDING")


def _indexed(model: Model) -> IndexedModel:
    return IndexedModel(model.number, model.dimension, model.metric)


def _concatenated(matrices: Sequence[FloatArray]) -> FloatArray:
    return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
