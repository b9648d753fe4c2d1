"""What a replica tells of its collection's upgrade: which models it serves, and how many documents have which vectors."""

from kintsugi.v1 import upgrades_pb2
from shard.engine import Engine
from shard.storage import Storage


def serving_models(engine: Engine) -> list[str]:
    """The models that searches may name here. One whose index is on its way counts once there is another way to its documents."""
    crossable = (name for name in engine.models if engine.crossing(name) is not None)
    return sorted({name for name, index in engine.models.items() if index.is_serving} | set(crossable))


def lacking(storage: Storage, model: int) -> float:
    """The part of the documents that have no vector of a model."""
    documents = storage.documents
    # Read one after the other, while documents come and go.
    with_vector = min(storage.documents_with_vector(model), documents)
    return 1 - with_vector / documents if documents else 0.0


def upgrade_progress(engine: Engine) -> upgrades_pb2.UpgradeShardProgress | None:
    """None when the collection is not upgraded, or not yet."""
    upgrade = engine.upgrade
    if upgrade is None:
        return None
    new = engine.models.get(upgrade.record.new_model.name)
    quality = new.quality.quality if new is not None else None
    traffic = engine.backfill.traffic(upgrade.new_number)
    return upgrades_pb2.UpgradeShardProgress(
        documents=engine.documents,
        with_old_vector=engine.storage.documents_with_vector(upgrade.old_number),
        with_new_vector=engine.storage.documents_with_vector(upgrade.new_number),
        mapped=new is not None and new.is_serving and new.source.fallback is not None,
        message="" if new is None or new.is_serving else "the index of the new model is being built",
        native_hits=traffic.native,
        hits=traffic.all,
        stale_vectors=engine.storage.stale_vectors,
        calibration_error=quality.calibration_error if quality is not None else 0.0,
        estimated_recall=quality.estimated_recall if quality is not None else 0.0,
    )
