"""Which vectors a replica's database takes, before and while its indexes follow the registry."""

import msgspec
import pytest

from kintsugi.log import records
from kintsugi.log.chain import extend
from kintsugi.log.faults import UnknownModel
from kintsugi.log.read import LogEntry
from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.records import Collection, Model
from shard.build_pace import BuildPace
from shard.engine import Engine, ModelOutside, ReplicaOutside
from shard.folders import ReplicaFolder
from shard.rebuilder import Outside
from shard.settings import ShardSettings
from shard.storage import ignore


def collection_of(models, **options):
    every = tuple(Model(number, f"m{number}", 2, Metric.COSINE) for number in range(1, models + 1))
    return Collection("uid1", "docs", 1, 1, Metric.COSINE, StoredType.F32, every, "m1", 1, **options)


@pytest.fixture
def engine(tmp_path):
    outside = ReplicaOutside(lambda _: ModelOutside(Outside(), lambda: None), BuildPace())
    settings = ShardSettings(data=tmp_path, redis="redis://unused", sync_writes=False)
    folder = ReplicaFolder(tmp_path / "replica")
    folder.prepare()
    opened = Engine.open(collection_of(1), None, folder, settings, outside, ignore)
    yield opened
    opened.close()


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
