"""What a replica tells of its collection's upgrade: in its status, and at a scrape."""

from types import SimpleNamespace

from kintsugi.registry.records import UpgradeState
from kintsugi.telemetry import metric_names as names
from shard.heat import Hits
from shard.upgrade_metrics import of_upgrade
from shard.upgrade_quality import Quality
from shard.upgrade_status import lacking, upgrade_progress

REPLICA = ("docs", "0")


class FakeEngine:
    """A replica of 200 documents, a quarter of which have a new vector."""

    def __init__(self):
        record = SimpleNamespace(state=UpgradeState.BACKFILLING, old_model="old", new_model=SimpleNamespace(name="new"))
        self.upgrade = SimpleNamespace(record=record, old_number=1, new_number=2)
        self.storage = SimpleNamespace(stale_vectors=7, documents=200, documents_with_vector={1: 200, 2: 50}.get)
        self.hits = {1: Hits(10, 10), 2: Hits(30, 40)}
        self.backfill = SimpleNamespace(traffic=self.hits.get)
        quality = SimpleNamespace(quality=Quality(0.25, 0.875, 12))
        self.new = SimpleNamespace(quality=quality, is_serving=True, source=SimpleNamespace(fallback=None))
        self.models = {"new": self.new}

    @property
    def documents(self):
        return self.storage.documents

    def samples(self, record="its own"):
        found = of_upgrade(self.upgrade.record if record == "its own" else record, self, REPLICA)
        return {(sample.metric.name, sample.labels): sample.value for sample in found}


def test_the_status_tells_everything():
    """As upgrades.proto defines it."""
    told = upgrade_progress(FakeEngine())
    assert (told.documents, told.with_old_vector, told.with_new_vector) == (200, 200, 50)
    assert (told.native_hits, told.hits, told.stale_vectors) == (30, 40, 7)
    assert (told.calibration_error, told.estimated_recall) == (0.25, 0.875)


def test_the_status_tells_what_was_not_measured():
    """By 0, as long as there is no index of the new model, and as long as nobody searched it."""
    engine = FakeEngine()
    engine.new.quality.quality = None
    assert (upgrade_progress(engine).calibration_error, upgrade_progress(engine).estimated_recall) == (0.0, 0.0)
    engine.models = {}
    assert (upgrade_progress(engine).calibration_error, upgrade_progress(engine).stale_vectors) == (0.0, 7)


def test_the_part_that_lacks_a_vector_is_never_below_nothing():
    """Its counts are read one after the other; without documents nothing is lacking."""
    storage = FakeEngine().storage
    assert [lacking(storage, model) for model in (1, 2)] == [0.0, 0.75]
    storage.documents = 199
    assert lacking(storage, 1) == 0.0
    storage.documents = 0
    assert lacking(storage, 2) == 0.0


def test_a_scrape_tells_everything():
    """The same as the status, as ratios where they are wanted."""
    samples = FakeEngine().samples()
    states = {labels[2]: value for (name, labels), value in samples.items() if name == names.UPGRADE_STATE.name}
    assert {state for state, value in states.items() if value} == {"backfilling"}
    assert set(states) == {state.value for state in UpgradeState}
    rest = {key: value for key, value in samples.items() if key[0] != names.UPGRADE_STATE.name}
    assert rest == {
        (names.UPGRADE_MIGRATED.name, REPLICA): 0.25,
        (names.UPGRADE_MIGRATED_TRAFFIC.name, REPLICA): 0.75,
        (names.UPGRADE_PROJECTED.name, (*REPLICA, "old")): 0.0,
        (names.UPGRADE_PROJECTED.name, (*REPLICA, "new")): 0.25,
        (names.UPGRADE_STALE_VECTORS.name, REPLICA): 7,
        (names.UPGRADE_CALIBRATION_ERROR.name, REPLICA): 0.25,
        (names.UPGRADE_RECALL.name, REPLICA): 0.875,
    }


def test_what_is_not_known_has_no_value():
    """A 0 would look like a fault."""
    engine = FakeEngine()
    engine.storage.documents, engine.hits[1], engine.hits[2], engine.new.quality.quality = 0, Hits(), Hits(), None
    assert {name for name, _ in engine.samples()} == {names.UPGRADE_STATE.name, names.UPGRADE_STALE_VECTORS.name}


def test_an_upgrade_that_is_over_still_has_its_state():
    """Its artifacts are not loaded any more."""
    engine = FakeEngine()
    engine.upgrade = None
    samples = engine.samples(SimpleNamespace(state=UpgradeState.FINISHED))
    assert samples[names.UPGRADE_STATE.name, (*REPLICA, "finished")] == 1
    assert {name for name, _ in samples} == {names.UPGRADE_STATE.name, names.UPGRADE_STALE_VECTORS.name}


def test_without_an_upgrade_there_is_nothing():
    """Most collections have none."""
    engine = FakeEngine()
    engine.upgrade = None
    assert upgrade_progress(engine) is None
    assert engine.samples(None) == {}
