"""What a replica tells of its collection's upgrade at a scrape."""

from collections.abc import Iterator

from kintsugi.registry.records import Upgrade, UpgradeState
from kintsugi.telemetry import metric_names as names
from kintsugi.telemetry.metrics import Sample, one_of
from shard.engine import Engine
from shard.upgrade_status import lacking


def of_upgrade(record: Upgrade | None, engine: Engine, labels: tuple[str, ...]) -> Iterator[Sample]:
    """Nothing without an upgrade. `record`: as the registry has it; before it begins and after it ended, only its state."""
    if record is None:
        return
    yield from one_of(names.UPGRADE_STATE, UpgradeState, record.state, *labels)
    yield Sample(names.UPGRADE_STALE_VECTORS, engine.storage.stale_vectors, labels)
    upgrade = engine.upgrade
    if upgrade is None:
        return
    old, new = upgrade.record.old_model, upgrade.record.new_model.name
    if engine.documents:
        yield Sample(names.UPGRADE_MIGRATED, 1 - lacking(engine.storage, upgrade.new_number), labels)
    for model, number in ((old, upgrade.old_number), (new, upgrade.new_number)):
        hits = engine.backfill.traffic(number)
        if hits.all:
            yield Sample(names.UPGRADE_PROJECTED, 1 - hits.native / hits.all, (*labels, model))
            if model == new:
                yield Sample(names.UPGRADE_MIGRATED_TRAFFIC, hits.native / hits.all, labels)
    index = engine.models.get(new)
    if index is not None and (quality := index.quality.quality) is not None:
        yield Sample(names.UPGRADE_CALIBRATION_ERROR, quality.calibration_error, labels)
        yield Sample(names.UPGRADE_RECALL, quality.estimated_recall, labels)
