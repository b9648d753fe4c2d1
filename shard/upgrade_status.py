"""What a replica tells of its collection's upgrade: which models it serves, and how many documents have which vectors."""

from kintsugi.v1 import upgrades_pb2
from shard.engine import Engine


def serving_models(engine: Engine) -> list[str]:
    """The models that searches may name here. One whose index is on its way counts once there is another way to its documents."""
    crossable = (name for name in engine.models if engine.crossing(name) is not None)
    return sorted({name for name, index in engine.models.items() if index.is_serving} | set(crossable))


def upgrade_progress(engine: Engine) -> upgrades_pb2.UpgradeShardProgress | None:
    """None when the collection is not upgraded, or not yet."""
    upgrade = engine.upgrade
    if upgrade is None:
        return None
    new = engine.models.get(upgrade.record.new_model.name)
    traffic = engine.backfill.traffic(upgrade.new_number)
    return upgrades_pb2.UpgradeShardProgress(
        documents=engine.documents,
        with_old_vector=engine.storage.documents_with_vector(upgrade.old_number),
        with_new_vector=engine.storage.documents_with_vector(upgrade.new_number),
        mapped=new is not None and new.is_serving and new.source.fallback is not None,
        message="" if new is None or new.is_serving else "the index of the new model is being built",
        native_hits=traffic.native,
        hits=traffic.all,
    )
