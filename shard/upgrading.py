"""An upgrade with its artifacts, as the replicas of this server need it: what stands in for vectors that are missing. Pure
but for what is handed in."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kintsugi.errors import Internal
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact, uncertainty
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.projection import Projection
from kintsugi.projections.strategy import Strategy
from kintsugi.projections.uncertainty import Uncertainty
from kintsugi.registry.records import Collection, Model, Upgrade
from kintsugi.registry.upgrades import is_mapped
from shard.checkpoint import IndexVersion
from shard.crossing import Crossing
from shard.effective import Fallback


@dataclass(frozen=True, slots=True, eq=False)
class LoadedUpgrade:
    """`record` as the registry has it; the rest are its artifacts. `old_number`, `new_number`: the models' numbers."""

    record: Upgrade
    old_number: int
    new_number: int
    bridge: Projection | None
    gallery_map: Projection | None
    reverse: Projection
    anchors: Anchors
    mapped_anchors: Anchors
    uncertainty: Uncertainty | None = None

    def at(self, record: Upgrade) -> "LoadedUpgrade":
        """The same artifacts in another state of their upgrade."""
        return replace(self, record=record)

    def fallback_of(self, model: str) -> Fallback | None:
        """What fills the gaps in the index of a model."""
        if model == self.record.old_model:
            return Fallback(self.new_number, self.reverse)
        if is_mapped(self.record) and self.gallery_map is not None:
            return Fallback(self.old_number, self.gallery_map)
        return None

    def crossing(
        self, model: Model, other: Model, other_serving: Callable[[], IndexVersion | None], *, is_filled: bool
    ) -> Crossing:
        """How documents that have a vector of `other` only take part in searches of `model`, whose index and source hold
        their projections when `is_filled`."""
        record = self.record
        if model.name == record.old_model:
            return Crossing(record.strategy, Calibration.RAW, model, other, mapped=True)
        if is_filled:
            own, others = self.anchors.new, self.mapped_anchors.old
            return Crossing(record.strategy, record.calibration, model, other, True, None, own, others)
        # Scores of two native spaces cannot be compared as they are, whatever is right for mapped vectors.
        raw = record.calibration is Calibration.RAW
        return Crossing(
            record.strategy,
            Calibration.QUANTILES if raw else record.calibration,
            model,
            other,
            mapped=False,
            bridge=self.bridge,
            anchors_own=self.anchors.new,
            anchors_other=self.anchors.old,
            other_serving=other_serving,
        )

    def mapped_by(self, model: str) -> str:
        """The digest of the projection that the index of a model is made with from the beginning; '' for none."""
        return self.record.gallery_map if model == self.record.new_model.name and is_mapped(self.record) else ""


def loaded(record: Upgrade, collection: Collection, files: dict[str, bytes]) -> LoadedUpgrade:
    """Reads the artifacts of an upgrade, by digest. Raises ArtifactInvalid."""
    old, new = collection.model(record.old_model), collection.model(record.new_model.name) or record.new_model
    if old is None:
        raise Internal(f"the upgrade of {collection.name} leaves model {record.old_model!r}, which it does not have")
    anchors = anchors_file.unpack(files[record.anchors])
    gallery_map = artifact.unpack(files[record.gallery_map]) if record.strategy is Strategy.MAP else None
    mapped = anchors if gallery_map is None else Anchors(gallery_map.apply(anchors.old), anchors.new)
    bridge = artifact.unpack(files[record.bridge]) if record.bridge else None
    # One projection may be both, and is large when the models are.
    if bridge is not None and record.reverse == record.bridge:
        reverse = bridge
    else:
        reverse = artifact.unpack(files[record.reverse])
    return LoadedUpgrade(
        record=record,
        old_number=old.number,
        new_number=new.number,
        bridge=bridge,
        gallery_map=gallery_map,
        reverse=reverse,
        anchors=anchors,
        mapped_anchors=mapped,
        uncertainty=uncertainty.unpack(files[record.uncertainty]) if record.uncertainty else None,
    )
