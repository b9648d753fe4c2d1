"""Which logs are taken for leftovers, and when they are removed."""

import pytest

from coordinator.leftovers import UNKNOWN_FOR_S, Leftovers
from kintsugi.log.read import Head
from kintsugi.position import Position
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.watch import RegistryHealth

STRAY = ("uid9", 0)


class World:
    """The logs in Redis, and the time."""

    def __init__(self):
        self.logs = {("uid1", 0): 1, ("uid1", 1): 1, STRAY: 1}  # with their incarnations
        self.now = 100.0

    async def more(self):
        return set(self.logs)

    async def head(self, uid, shard):
        incarnation = self.logs.get((uid, shard))
        return incarnation and Head(incarnation, Position(1, 0, b""), 0, b"", 1, 1, 0, open=True)

    async def drop(self, uid, shard):
        del self.logs[uid, shard]


@pytest.fixture
def world():
    return World()


@pytest.fixture
def leftovers(registry, world):
    return Leftovers(registry, world, world.head, world.drop, lambda: world.now)


@pytest.fixture
def later(leftovers, world):
    """Looks again after a time."""

    async def later(seconds):
        world.now += seconds
        await leftovers.look()

    return later


async def test_a_log_that_no_collection_has_is_removed_in_time(later, world):
    """Not before its time: whoever created it may be about to name it."""
    await later(0)
    await later(UNKNOWN_FOR_S - 1)
    assert STRAY in world.logs
    await later(1)
    assert sorted(world.logs) == [("uid1", 0), ("uid1", 1)]


async def test_a_collection_that_is_named_in_time_keeps_its_logs(later, world, registry, kit):
    """The time begins anew should it ever be unknown again."""
    await later(0)
    named = kit.shard(0).__class__("uid9", 0, kit.shard(0).epochs, kit.shard(0).log_state, {})
    registry.set(named)
    await later(UNKNOWN_FOR_S)
    assert STRAY in world.logs


async def test_a_collection_that_was_named_behind_the_listing_is_known(later, world, registry, kit):
    """The registry is read after the logs."""
    await later(0)
    shard = kit.shard(0)
    named = shard.__class__("uid9", 0, shard.epochs, shard.log_state, {})
    records = [registry.view.collections["uid1"], kit.shard(0), kit.shard(1), named]
    registry.newer = kit.snapshot(records, revision=99)
    await later(UNKNOWN_FOR_S)
    assert STRAY in world.logs


@pytest.mark.parametrize("health", [RegistryHealth.UNREACHABLE, RegistryHealth.REGRESSED])
async def test_the_time_counts_only_while_the_registry_is_well(later, world, registry, health):
    """A loss of Redis must not make the logs of a collection look like leftovers."""
    await later(0)
    registry.set_health(health)
    await later(UNKNOWN_FOR_S)
    registry.set_health(RegistryHealth.OK)
    await later(1)
    assert STRAY in world.logs
    await later(UNKNOWN_FOR_S)
    assert STRAY not in world.logs


async def test_nothing_is_removed_while_somebody_acts_on_a_newer_registry(later, world, registry):
    """A registry that went back does not know what was created since."""
    registry.leases["shard-a"] = LeaseInfo(10**6)
    await later(0)
    await later(UNKNOWN_FOR_S)
    assert STRAY in world.logs


async def test_a_log_of_a_later_incarnation_is_left_alone(later, world):
    """It belongs to a registry that this coordinator does not know yet."""
    world.logs[STRAY] = 2
    await later(0)
    await later(UNKNOWN_FOR_S)
    assert STRAY in world.logs
