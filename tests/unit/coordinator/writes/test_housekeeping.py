"""Housekeeping: who leaves the in-sync set, whose positions are dropped, who is forgotten."""

import pytest

from coordinator.housekeeping import Housekeeping, Patience
from kintsugi.log.read import Head
from kintsugi.position import Position
from kintsugi.registry.records import Member, ReplicaState, Role
from kintsugi.registry.watch import RegistryHealth

IN_SYNC, JOINING, OUT_OF_SYNC = ReplicaState.IN_SYNC, ReplicaState.JOINING, ReplicaState.OUT_OF_SYNC
MAX_LOG_BYTES = 1000


class Positions:
    """LogPositions in memory."""

    def __init__(self):
        self.held = {("uid1", shard): {"shard-a": 5, "shard-b": 7} for shard in (0, 1)}
        # Where a member gets to between being read and being dropped.
        self.moved_to = None

    async def all(self, uid, shard):
        return dict(self.held[uid, shard])

    async def drop(self, uid, shard, member, at=None):
        if self.moved_to is not None:
            self.held[uid, shard][member] = self.moved_to
        if at is not None and self.held[uid, shard].get(member) != at:
            return False
        del self.held[uid, shard][member]
        return True


@pytest.fixture
def positions():
    return Positions()


@pytest.fixture
def kept():
    """What the log keeps: its first sequence number and its bytes."""
    return {"first_end_seq": 1, "bytes": 10}


@pytest.fixture
def housekeeping(registry, positions, kept):
    async def head(_uid, _shard):
        return Head(1, Position(1, 100, b"d"), 0, b"", 1, kept["first_end_seq"], kept["bytes"], open=True)

    return Housekeeping(registry, positions, head, Patience(10.0, 100.0), max_log_bytes=MAX_LOG_BYTES)


async def test_member_without_lease_leaves_the_in_sync_set_with_its_positions(housekeeping, registry, positions):
    """The log no longer waits for it."""
    registry.absent_s["shard-b"] = 10.0
    await housekeeping.sweep()
    for shard in registry.view.shards.values():
        assert shard.replicas == {"shard-a": IN_SYNC, "shard-b": OUT_OF_SYNC}
    assert positions.held == {("uid1", 0): {"shard-a": 5}, ("uid1", 1): {"shard-a": 5}}


async def test_member_gets_its_time(housekeeping, registry, positions):
    """A short absence changes nothing."""
    registry.absent_s["shard-b"] = 9.9
    revision = registry.view.snapshot.revision
    await housekeeping.sweep()
    assert registry.view.snapshot.revision == revision
    assert positions.held["uid1", 0] == {"shard-a": 5, "shard-b": 7}


async def test_last_in_sync_replica_never_leaves(housekeeping, registry, positions, kit):
    """It may hold the only copy; its position stays too. Another one that is gone as well has begun to join only."""
    registry.set(kit.shard(0, replicas={"shard-a": JOINING, "shard-b": IN_SYNC}))
    registry.absent_s = {"shard-a": 99.0, "shard-b": 99.0}
    await housekeeping.sweep()
    assert registry.view.shards["uid1", 0].replicas == {"shard-a": OUT_OF_SYNC, "shard-b": IN_SYNC}
    assert positions.held["uid1", 0] == {"shard-b": 7}


async def test_none_leaves_when_all_are_gone(housekeeping, registry, positions):
    """Should Redis lose its end before they are back, recovery must hear the one that holds most, whoever that is. Once
    one is back, the others leave."""
    registry.absent_s = {"shard-a": 99.0, "shard-b": 99.0}
    await housekeeping.sweep()
    assert registry.view.shards["uid1", 0].in_sync == ("shard-a", "shard-b")
    assert positions.held["uid1", 0] == {"shard-a": 5, "shard-b": 7}
    registry.absent_s = {"shard-b": 99.0}
    await housekeeping.sweep()
    assert registry.view.shards["uid1", 0].replicas == {"shard-a": IN_SYNC, "shard-b": OUT_OF_SYNC}


async def test_a_replica_out_of_sync_does_not_hold_the_log_however_alive_its_server_is(
    housekeeping, registry, positions, kit
):
    """One whose disk is full would fill the log for ever; one that joins is waited for."""
    registry.set(kit.shard(0, replicas={"shard-a": IN_SYNC, "shard-b": OUT_OF_SYNC}))
    registry.set(kit.shard(1, replicas={"shard-a": IN_SYNC, "shard-b": JOINING}))
    await housekeeping.sweep()
    assert positions.held == {("uid1", 0): {"shard-a": 5}, ("uid1", 1): {"shard-a": 5, "shard-b": 7}}


async def test_a_replica_that_began_to_join_keeps_its_position(housekeeping, registry, positions, kit):
    """What the registry said before counts for nothing: it is read again behind the positions, before one is dropped."""
    registry.set(kit.shard(0, replicas={"shard-a": IN_SYNC, "shard-b": OUT_OF_SYNC}))
    joining = kit.shard(0, replicas={"shard-a": IN_SYNC, "shard-b": JOINING})
    records = [registry.view.collections["uid1"], joining, kit.shard(1), *registry.view.members.values()]
    registry.newer = kit.snapshot(records, revision=99)
    await housekeeping.sweep()
    assert positions.held["uid1", 0] == {"shard-a": 5, "shard-b": 7}


async def test_a_position_that_moved_on_is_not_dropped(housekeeping, registry, positions, kit):
    """Its replica reported again, perhaps as one that joins by now."""
    registry.set(kit.shard(0, replicas={"shard-a": IN_SYNC, "shard-b": OUT_OF_SYNC}))
    positions.moved_to = 8
    await housekeeping.sweep()
    assert positions.held["uid1", 0] == {"shard-a": 5, "shard-b": 8}


@pytest.fixture
def joining(registry, kit):
    """The registry, with shard-b joining shard 0."""
    registry.set(kit.shard(0, replicas={"shard-a": IN_SYNC, "shard-b": JOINING}))
    return registry


HALF_FULL = {"first_end_seq": 3, "bytes": MAX_LOG_BYTES // 2 + 1}


@pytest.mark.parametrize(
    ("changes", "in_sync_at", "left"),
    [
        ({}, 5, {"shard-a": 5}),
        ({"bytes": MAX_LOG_BYTES // 2}, 5, {"shard-a": 5, "shard-b": 3}),  # there is room
        ({}, 3, {"shard-a": 3, "shard-b": 3}),  # an in-sync replica is as far behind
        ({"first_end_seq": 2}, 5, {"shard-a": 5, "shard-b": 3}),  # an earlier break has not shown yet
    ],
)
async def test_a_log_waits_for_a_joining_replica_up_to_half_of_its_bound(
    housekeeping, positions, joining, kept, changes, in_sync_at, left
):
    """The rest is for what arrives while in-sync replicas are away; only the hold that keeps the log is broken."""
    positions.held["uid1", 0] = {"shard-a": in_sync_at, "shard-b": 3}
    kept.update(HALF_FULL | changes)
    await housekeeping.sweep()
    assert positions.held["uid1", 0] == left


async def test_a_joining_replica_with_nobody_to_copy_from_keeps_its_hold(housekeeping, joining, positions, kept):
    """The log is all that it has."""
    positions.held["uid1", 0] = {"shard-a": 5, "shard-b": 3}
    kept.update(HALF_FULL)
    del joining.leases["shard-a"]
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
