"""Which vectors a replica's database and indexes take, before and while they follow the registry."""

import asyncio
import threading

import msgspec
import numpy as np
import pytest
from harness.waiting import until

from kintsugi.errors import Unavailable
from kintsugi.log import records
from kintsugi.log.chain import extend
from kintsugi.log.faults import UnknownModel
from kintsugi.log.read import LogEntry
from kintsugi.metrics import Metric, StoredType
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.projection import Affine, Kind
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Collection, Model, Upgrade, UpgradeState
from kintsugi.registry.upgrades import collection_after
from shard.build_pace import BuildPace
from shard.engine import Engine, ModelOutside, ReplicaOutside
from shard.folders import ReplicaFolder
from shard.rebuilder import Outside
from shard.settings import ShardSettings
from shard.storage import ignore
from shard.upgrading import LoadedUpgrade

OLD, NEW = np.array([1, 0], "<f4"), np.array([0, 1], "<f4")


def collection_of(models, **options):
    every = tuple(Model(number, f"m{number}", 2, Metric.COSINE) for number in range(1, models + 1))
    return Collection("uid1", "docs", 1, 1, Metric.COSINE, StoredType.F32, every, "m1", 1, **options)


@pytest.fixture
def opened(tmp_path):
    """Opens the replica as the registry has it: opened(collection, upgrade). What was open is closed."""
    engines = []

    def run(collection, upgrade=None):
        if engines:
            engines.pop().close()
        outside = ReplicaOutside(lambda _: ModelOutside(Outside(), lambda: None), BuildPace())
        settings = ShardSettings(data=tmp_path, redis="redis://unused", sync_writes=False)
        folder = ReplicaFolder(tmp_path / "replica")
        folder.prepare()
        engines.append(Engine.open(collection, upgrade, folder, settings, outside, ignore))
        return engines[0]

    yield run
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(opened):
    return opened(collection_of(1))


TURN = np.array([[0, 1], [1, 0]], np.float32)


def upgrade_of(state, strategy=Strategy.BRIDGE):
    """From m1 to m2, whose vectors are those of m1 with their elements exchanged. With the collection in this state."""
    collection = collection_of(1)
    model = Model(2, "m2", 2, Metric.COSINE)
    gallery_map = "f" * 64 if strategy is Strategy.MAP else ""
    record = Upgrade(
        "uid1", 1, "m1", model, state, strategy, Calibration.QUANTILES, "b", gallery_map, "r", "a", "p", 1.0, 1.0, 1, 1
    )
    started = collection_after(collection, msgspec.structs.replace(record, state=UpgradeState.SERVING_BOTH))
    exchange = Affine(Kind.RIDGE, Metric.COSINE, TURN, np.zeros(2, np.float32))
    some = np.random.default_rng(0).standard_normal((60, 2)).astype(np.float32)
    anchors = Anchors(some, some @ TURN)
    mapped = exchange if strategy is Strategy.MAP else None
    return collection_after(started, record), LoadedUpgrade(record, 1, 2, exchange, mapped, exchange, anchors, anchors)


def rows_of(index):
    serving = index.indexer.serving
    return set() if serving is None else set(serving.index.graph.rows().tolist())


async def holds(index, rows):
    """Waits until the index holds exactly these rows."""
    await until(lambda: rows_of(index) == rows, f"rows {rows} of {index.model.name}")


def entry_of(engine, body):
    seq = engine.position.seq + 1
    payload = records.stamp(body, 7)
    return LogEntry(1, seq, payload, extend(engine.position.digest, seq, payload))


def test_a_new_model_is_known_before_its_index_is_opened(engine):
    """Records with its vectors are refused until then, and no longer."""
    engine.apply([entry_of(engine, records.put("a", {1: bytes(8)}))])
    embed = entry_of(engine, records.embed("a", {2: bytes(8)}, expected_version=1))
    with pytest.raises(UnknownModel):
        engine.apply([embed])
    engine.know_models(collection_of(2))
    engine.apply([embed])
    assert list(engine.models) == ["m1"]
    assert engine.storage.documents_with_vector(2) == 1


def test_a_dropped_model_loses_its_vectors_and_takes_none(engine):
    """Once the registry says that it is given up, for what is stored and for what is replayed."""
    both = collection_of(2)
    engine.follow(both, None)
    engine.apply([entry_of(engine, records.put("a", {1: b"12345678", 2: b"12345678"}))])
    given_up = msgspec.structs.replace(both, serving_model="m2", retired=("m1",), dropped=("m1",))
    engine.follow(given_up, None)
    engine.apply([entry_of(engine, records.put("b", {1: b"12345678", 2: b"12345678"}))])
    assert engine.storage.documents_with_vector(1) == 1
    engine.drop_vectors()
    assert [engine.storage.documents_with_vector(model) for model in (1, 2)] == [0, 2]
    assert list(engine.models) == ["m2"]


def test_vectors_that_a_rollback_left_behind_go_when_an_upgrade_to_another_model_begins(engine):
    """The rollback keeps them, and so does an upgrade to the same model; no document goes with them."""
    started, upgrade = upgrade_of(UpgradeState.SERVING_BOTH)
    other = Model(3, "m3", 2, Metric.COSINE)
    to_other = msgspec.structs.replace(upgrade.record, number=3, new_model=other)
    returned = collection_after(started, msgspec.structs.replace(upgrade.record, state=UpgradeState.ROLLED_BACK))
    engine.follow(started, None)
    engine.apply([entry_of(engine, records.put("a", {1: OLD.tobytes(), 2: NEW.tobytes()}))])
    for collection, left in (
        (returned, 1),
        (collection_after(returned, msgspec.structs.replace(upgrade.record, number=2)), 1),
        (collection_after(returned, msgspec.structs.replace(to_other, state=UpgradeState.PLANNED)), 1),
        (collection_after(returned, to_other), 0),
    ):
        engine.follow(collection, None)
        engine.drop_vectors()
        assert [engine.storage.documents_with_vector(model) for model in (1, 2)] == [1, left]
    assert engine.documents == 1


async def test_documents_that_came_before_the_upgrade_was_followed_get_into_the_old_index(engine):
    """They have a vector of the new model only, and the journal was followed past them before anybody could project it."""
    collection, upgrade = upgrade_of(UpgradeState.SERVING_BOTH)
    engine.know_models(collection)
    engine.apply([entry_of(engine, records.put("a", {1: OLD.tobytes()}))])
    engine.apply([entry_of(engine, records.put("b", {2: NEW.tobytes()}))])
    await engine.reached(2, 5.0, searchable=True)
    assert rows_of(engine.models["m1"]) == {1}
    engine.follow(collection, upgrade)
    await holds(engine.models["m1"], {1, 2})


async def test_a_checkpoint_from_before_the_upgrade_was_followed_is_completed(opened, engine):
    """The server ended in between."""
    collection, upgrade = upgrade_of(UpgradeState.SERVING_BOTH)
    engine.know_models(collection)
    engine.apply([entry_of(engine, records.put("a", {2: NEW.tobytes()}))])
    await engine.reached(1, 5.0, searchable=True)
    again = opened(collection, upgrade)
    await holds(again.models["m1"], {1})


async def test_what_came_while_an_upgrade_finished_in_vain_gets_into_the_mapped_index(opened):
    """The new model's gaps are not filled while it finishes; when it goes back to the cut-over, they are."""
    engine = opened(*upgrade_of(UpgradeState.CUT_OVER, Strategy.MAP))
    engine.follow(*upgrade_of(UpgradeState.FINISHING, Strategy.MAP))
    engine.apply([entry_of(engine, records.put("a", {1: OLD.tobytes()}))])
    await engine.reached(1, 5.0, searchable=True)
    assert rows_of(engine.models["m2"]) == set()
    engine.follow(*upgrade_of(UpgradeState.CUT_OVER, Strategy.MAP))
    await holds(engine.models["m2"], {1})


@pytest.mark.parametrize("state", [UpgradeState.BACKFILLING, UpgradeState.CUT_OVER, UpgradeState.FINISHING])
async def test_a_mapped_index_is_loaded_after_a_restart(opened, state):
    """From its checkpoint: the same version, whatever the state."""
    engine = opened(*upgrade_of(UpgradeState.BACKFILLING, Strategy.MAP))
    engine.apply([entry_of(engine, records.put("a", {1: OLD.tobytes()}))])
    await holds(engine.models["m2"], {1})
    before = {name: index.indexer.serving.number for name, index in engine.models.items()}
    again = opened(*upgrade_of(state, Strategy.MAP))
    for name, index in again.models.items():
        await until(lambda index=index: index.is_serving, f"the index of {name}")
    assert {name: index.indexer.serving.number for name, index in again.models.items()} == before
    await holds(again.models["m2"], {1})


@pytest.mark.parametrize("state", [UpgradeState.ROLLING_BACK, UpgradeState.ROLLED_BACK])
async def test_after_a_rollback_the_old_index_holds_everything_through_restarts(opened, state):
    """Also what has a new vector only; the index of the new model is gone from the disk, whoever was away when it was closed."""
    engine = opened(*upgrade_of(UpgradeState.BACKFILLING))
    engine.apply([entry_of(engine, records.put("a", {1: OLD.tobytes()}))])
    engine.apply([entry_of(engine, records.put("b", {2: NEW.tobytes()}))])
    await holds(engine.models["m1"], {1, 2})
    again = opened(*upgrade_of(state))
    assert list(again.models) == ["m1"]
    await holds(again.models["m1"], {1, 2})
    assert [path.name for path in again.folder.index.iterdir()] == ["1"]


async def test_after_the_end_the_new_index_is_alone(opened):
    """Followed from the cut-over, or found so after a restart that missed the end."""
    engine = opened(*upgrade_of(UpgradeState.CUT_OVER))
    engine.apply([entry_of(engine, records.put("a", {1: OLD.tobytes(), 2: NEW.tobytes()}))])
    await holds(engine.models["m2"], {1})
    collection, _ = upgrade_of(UpgradeState.FINISHED)
    again = opened(collection)
    again.drop_vectors()
    assert list(again.models) == ["m2"]
    await holds(again.models["m2"], {1})
    assert [path.name for path in again.folder.index.iterdir()] == ["2"]
    assert again.storage.documents_with_vector(1) == 0


def test_indexes_that_were_opened_are_closed_when_another_cannot_be(opened, tmp_path):
    """Nothing of a failed step is left running: it is tried again."""
    in_the_way = tmp_path / "replica" / "index" / "2"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("")
    with pytest.raises(OSError, match="2"):
        opened(*upgrade_of(UpgradeState.BACKFILLING))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("indexer", "search"))]
    in_the_way.unlink()
    assert set(opened(*upgrade_of(UpgradeState.BACKFILLING)).models) == {"m1", "m2"}


def broken():
    """What an index cannot read again."""
    raise OSError("the disk is gone")
    yield


@pytest.mark.parametrize("state", [UpgradeState.SERVING_BOTH, UpgradeState.FINISHED])
async def test_every_index_is_watched(opened, state):
    """Also one that came after the first, and when the first is gone."""
    engine = opened(*upgrade_of(UpgradeState.CUT_OVER))
    collection, upgrade = upgrade_of(state)
    engine.follow(collection, None if state is UpgradeState.FINISHED else upgrade)
    await engine.reached(0, 5.0, searchable=True)
    await engine.watch(0.01)
    engine.models["m2"].indexer.read_again(broken(), missing_only=False)
    with pytest.raises(Unavailable, match="the disk is gone"):
        await engine.watch(5.0)
    assert engine.failure is not None


async def test_an_index_that_is_given_up_is_no_failure(opened):
    """Whoever watches it hears nothing bad."""
    engine = opened(*upgrade_of(UpgradeState.CUT_OVER))
    watching = asyncio.create_task(engine.watch(5.0))
    await until(lambda: engine.models["m1"].indexer.serving is not None, "the index of m1")
    await asyncio.to_thread(engine.follow, upgrade_of(UpgradeState.FINISHED)[0], None)
    await watching
