"""Upgrades that go on by themselves: what each state waits for, and that no old write slips in at the end."""

import pytest

from coordinator.upgrade_driver import UpgradeDriver, after
from kintsugi.errors import Unavailable
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import UpgradeState
from kintsugi.registry.upgrades import UpgradeEvent

MIGRATED = {"documents": 100, "with_old_vector": 100, "with_new_vector": 100}


class Fences:
    """LogWriter.fence: logs that end at 50."""

    def __init__(self):
        self.fenced = []
        self.failure = None

    async def fence(self, uid, shard, incarnation, epoch, revision):
        if self.failure is not None:
            raise self.failure
        self.fenced.append((uid, shard, incarnation, epoch, revision))
        return 50


@pytest.fixture
def fences():
    return Fences()


@pytest.fixture
def driver(registry, reports, fences, artifacts):
    return UpgradeDriver(registry, reports, fences, artifacts, lambda: 9)


@pytest.fixture
def swept(driver, registry):
    """Sweeps once and tells the state."""

    async def run():
        await driver.sweep()
        return registry.view.upgrades["uid1"].state

    return run


@pytest.mark.parametrize(
    ("strategy", "state"),
    [
        (Strategy.BRIDGE, UpgradeState.BACKFILLING),
        (Strategy.BOTH, UpgradeState.BACKFILLING),
        (Strategy.MAP, UpgradeState.MAPPING),
    ],
)
async def test_backfill_begins_when_all_serve_both_models(planned, place, swept, servers, strategy, state):
    """One replica that lacks one of them holds it up; mapped vectors are built first when the plan wants them."""
    await planned()
    await place(UpgradeState.SERVING_BOTH, strategy=strategy)
    assert await swept() is UpgradeState.SERVING_BOTH
    servers.serving = ["old", "new"]
    servers.silent = {"shard-b"}
    assert await swept() is UpgradeState.SERVING_BOTH
    servers.silent = set()
    assert await swept() is state


async def test_mapping_ends_when_all_are_mapped(planned, place, swept, servers):
    """Every replica that lives."""
    await planned()
    await place(UpgradeState.MAPPING)
    servers.of_member = {"shard-a": {"mapped": True}}
    assert await swept() is UpgradeState.MAPPING
    servers.progress = {**servers.progress, "mapped": True}
    assert await swept() is UpgradeState.BACKFILLING


async def test_a_rollback_ends_when_the_old_model_is_alone(planned, place, swept, servers, registry):
    """The new one is retired all the while."""
    await planned()
    await place(UpgradeState.BACKFILLING)
    await place(UpgradeState.ROLLING_BACK)
    servers.serving = ["old", "new"]
    assert await swept() is UpgradeState.ROLLING_BACK
    servers.serving = ["old"]
    assert await swept() is UpgradeState.ROLLED_BACK
    assert registry.view.collections["uid1"].retired == ("new",)


async def test_a_rollback_ends_behind_the_fence(planned, place, swept, servers, fences, registry):
    """A coordinator that does not know of it writes no document with a new vector alone afterwards."""
    await planned()
    await place(UpgradeState.ROLLING_BACK)
    revision = registry.view.snapshot.revision
    fences.failure = Unavailable("the log is being restored")
    assert await swept() is UpgradeState.ROLLING_BACK
    fences.failure = None
    assert await swept() is UpgradeState.ROLLED_BACK
    assert fences.fenced == [("uid1", 0, 1, 1, revision), ("uid1", 1, 1, 1, revision)]


@pytest.mark.parametrize(
    "state", [UpgradeState.PLANNED, UpgradeState.BACKFILLING, UpgradeState.CUT_OVER, UpgradeState.FINISHED]
)
async def test_what_waits_for_a_person_stays(planned, place, swept, servers, state):
    """However far the replicas are."""
    await planned()
    await place(state)
    servers.serving, servers.progress = ["old", "new"], {**MIGRATED, "mapped": True}
    assert await swept() is state


async def test_the_end_comes_behind_the_fence(planned, place, swept, servers, fences, registry):
    """Logs are fenced at the present revision, and the replicas must hold what stood in them then."""
    await planned()
    await place(UpgradeState.CUT_OVER)
    await place(UpgradeState.FINISHING)
    revision = registry.view.snapshot.revision
    servers.progress, servers.seq = MIGRATED, 49
    assert await swept() is UpgradeState.FINISHING
    assert fences.fenced == [("uid1", 0, 1, 1, revision), ("uid1", 1, 1, 1, revision)]
    servers.seq = 50
    assert await swept() is UpgradeState.FINISHED
    collection = registry.view.collections["uid1"]
    assert (collection.serving_model, collection.retired) == ("new", ("old",))


async def test_a_document_that_slipped_in_before_the_fence_reopens_the_old_model(
    planned, place, swept, servers, registry
):
    """Nothing is dropped; the operator may finish again."""
    await planned()
    await place(UpgradeState.CUT_OVER)
    await place(UpgradeState.FINISHING)
    servers.progress = {**MIGRATED, "with_new_vector": 99}
    assert await swept() is UpgradeState.CUT_OVER
    assert registry.view.collections["uid1"].retired == ()


async def test_without_a_fence_nothing_is_finished(planned, place, swept, servers, fences):
    """A log that is being restored is tried again at the next sweep."""
    await planned()
    await place(UpgradeState.CUT_OVER)
    await place(UpgradeState.FINISHING)
    servers.progress = MIGRATED
    fences.failure = Unavailable("the log is being restored")
    assert await swept() is UpgradeState.FINISHING
    fences.failure = None
    assert await swept() is UpgradeState.FINISHED


async def test_what_was_decided_for_another_state_does_not_apply(planned, place, registry):
    """Another coordinator was faster."""
    upgrade = await planned()
    await place(UpgradeState.BACKFILLING)
    assert after(registry.view, upgrade, UpgradeEvent.STARTED, 9) == []


async def test_what_was_decided_for_an_earlier_stay_in_a_state_does_not_apply(planned, place, registry):
    """The upgrade went back for want of vectors and finishes once more: what was seen before says nothing of now."""
    await planned()
    await place(UpgradeState.FINISHING, changed_at_us=6)
    seen = registry.view.upgrades["uid1"]
    await place(UpgradeState.CUT_OVER, changed_at_us=7)
    await place(UpgradeState.FINISHING, changed_at_us=8)
    assert after(registry.view, seen, UpgradeEvent.COMPLETE, 9) == []
    now = registry.view.upgrades["uid1"]
    assert after(registry.view, now, UpgradeEvent.COMPLETE, 9)[0].state is UpgradeState.FINISHED


async def test_artifacts_that_the_registry_names_are_kept(planned, swept, artifacts):
    """From the next sweep on; as soon as Redis takes it."""
    upgrade = await planned()
    artifacts.is_away = True
    await swept()
    assert artifacts.kept == set()
    artifacts.is_away = False
    await swept()
    assert artifacts.kept == set(upgrade.artifacts)


async def test_artifacts_of_a_replaced_plan_are_dropped(planned, swept, artifacts, registry):
    """Those that the registry names stay."""
    await planned()
    await swept()
    replaced = await planned(report=b'{"another": 1}')
    await swept()
    assert set(artifacts.held) == set(replaced.artifacts)
