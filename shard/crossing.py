"""What a search of one model needs to know of the other while a collection moves between them. Immutable; knows no engine.

Three kinds of crossing:
1. Bridged: documents that lack a vector of the searched model are found in the other model's index, by queries that the client
   gave or that `bridge` projects, and their scores are calibrated by the anchors.
2. Mapped: the searched model's index holds projected vectors of those documents. Their scores are calibrated by the anchors, too,
   unless the calibration is RAW.
3. Mapped and RAW: nothing is found or scored differently; hits without a vector of their own are flagged. So is every search of
   the model that an upgrade leaves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from kintsugi.projections.calibration import Calibration
from kintsugi.projections.projection import F32Matrix, Projection
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Model
from shard.checkpoint import IndexVersion


@dataclass(frozen=True, slots=True, eq=False)
class Crossing:
    """`model` is searched; documents may have a vector of `other_model` only. `bridge`: from the model's space to the other
    one, for queries; None when clients must give both. `anchors_own` and `anchors_other` are the same documents in the same
    order, in the model's space and in the one where the others are scored: the other model's, or, when `mapped`, their
    projections into the model's. None when nothing is calibrated. `mapped`: the model's index and source hold projected
    vectors of the documents that lack one. `other_serving`: the other model's index now, None while there is none; not asked
    when `mapped`."""

    strategy: Strategy
    calibration: Calibration
    model: Model
    other_model: Model
    mapped: bool
    bridge: Projection | None = None
    anchors_own: F32Matrix | None = None
    anchors_other: F32Matrix | None = None
    other_serving: Callable[[], IndexVersion | None] = lambda: None

    @property
    def is_flat(self) -> bool:
        """Whether all documents are found and scored alike."""
        return self.mapped and self.calibration is Calibration.RAW


# Asked for each batch of searches, on the search thread: None outside of upgrades. The same object as long as nothing
# changes, since what is prepared from it is kept with it. Who takes an index of mapped vectors into service must say `mapped`
# no earlier than that.
Crossings: TypeAlias = Callable[[], Crossing | None]


def no_crossing() -> Crossing | None:
    """Outside of upgrades."""
    return None
