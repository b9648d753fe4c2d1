"""Housekeeping: who leaves the in-sync set, whose positions are dropped, who is forgotten."""

import pytest

from coordinator.housekeeping import Housekeeping, Patience
from kintsugi.registry.records import Member, ReplicaState, Role
from kintsugi.registry.watch import RegistryHealth


class Positions:
    """LogPositions in memory."""

    def __init__(self):
        self.held = {("uid1", shard): {"shard-a": 5, "shard-b": 7} for shard in (0, 1)}

    async def all(self, uid, shard):
        return dict(self.held[uid, shard])

    async def drop(self, uid, shard, member):
        del self.held[uid, shard][member]


@pytest.fixture
def positions():
    return Positions()


@pytest.fixture
def housekeeping(registry, positions):
    return Housekeeping(registry, positions, Patience(10.0, 100.0))


async def test_member_without_lease_leaves_the_in_sync_set_with_its_positions(housekeeping, registry, positions):
    """The log no longer waits for it."""
    registry.absent_s["shard-b"] = 10.0
    await housekeeping.sweep()
    for shard in registry.view.shards.values():
        assert shard.replicas == {"shard-a": ReplicaState.IN_SYNC, "shard-b": ReplicaState.OUT_OF_SYNC}
    assert positions.held == {("uid1", 0): {"shard-a": 5}, ("uid1", 1): {"shard-a": 5}}


async def test_member_gets_its_time(housekeeping, registry, positions):
    """A short absence changes nothing."""
    registry.absent_s["shard-b"] = 9.9
    revision = registry.view.snapshot.revision
    await housekeeping.sweep()
    assert registry.view.snapshot.revision == revision
    assert positions.held["uid1", 0] == {"shard-a": 5, "shard-b": 7}


async def test_last_in_sync_replica_never_leaves(housekeeping, registry, positions):
    """It may hold the only copy; its position stays too."""
    registry.absent_s = {"shard-a": 99.0, "shard-b": 99.0}
    await housekeeping.sweep()
    assert len(registry.view.shards["uid1", 0].in_sync) == 1
    left = registry.view.shards["uid1", 0].in_sync[0]
    assert list(positions.held["uid1", 0]) == [left]


async def test_hold_of_a_living_member_that_joins_stays(housekeeping, registry, positions, kit):
    """It sets its position before the registry calls it joining."""
    registry.set(kit.shard(0, replicas={"shard-a": ReplicaState.IN_SYNC, "shard-b": ReplicaState.OUT_OF_SYNC}))
    await housekeeping.sweep()
    assert "shard-b" in positions.held["uid1", 0]


async def test_position_of_a_stranger_is_dropped(housekeeping, positions):
    """A member that is no replica must not keep the log from being trimmed."""
    positions.held["uid1", 1]["shard-old"] = 0
    await housekeeping.sweep()
    assert positions.held["uid1", 1] == {"shard-a": 5, "shard-b": 7}


@pytest.mark.parametrize("health", [RegistryHealth.UNREACHABLE, RegistryHealth.MISSING, RegistryHealth.REGRESSED])
async def test_nothing_is_swept_while_the_registry_is_not_well(housekeeping, registry, positions, health):
    """A loss of Redis must not make everybody look dead."""
    registry.absent_s["shard-b"] = 99.0
    registry.set_health(health)
    await housekeeping.sweep()
    assert len(registry.view.shards["uid1", 0].in_sync) == 2
    assert "shard-b" in positions.held["uid1", 0]


async def test_coordinator_that_is_long_gone_is_forgotten(housekeeping, registry):
    """Shard servers are never forgotten: their replicas may come back."""
    registry.set(Member("coordinator-x", Role.COORDINATOR, "x:1", "1"))
    registry.absent_s = {"coordinator-x": 99.0, "shard-b": 1e6}
    await housekeeping.sweep()
    assert "coordinator-x" in registry.view.members
    registry.absent_s["coordinator-x"] = 100.0
    await housekeeping.sweep()
    assert "coordinator-x" not in registry.view.members
    assert "shard-b" in registry.view.members
