"""The status of the cluster."""

import msgspec
import pytest

from coordinator.status import Status
from kintsugi.errors import Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.lifecycle import LifecycleState
from kintsugi.log.read import Head
from kintsugi.position import Position
from kintsugi.registry.records import LogState, Member, ReplicaState, Role
from kintsugi.registry.watch import RegistryHealth
from kintsugi.v1 import cluster_pb2


class Calls:
    """ReplicaCalls: each server hosts shard 0 and 1 of uid1."""

    def __init__(self):
        self.silent = set()
        self.seqs = {"shard-a": 5, "shard-b": 9}
        self.recovery = {}

    async def status(self, member, _timeout_s):
        self._check(member)
        response = shard_pb2.GetServerStatusResponse(member=member, lifecycle="SERVING", resident_bytes=7)
        for number in (0, 1):
            hosted = response.replicas.add()
            hosted.replica.collection_uid, hosted.replica.shard = "uid1", number
            hosted.recovery = self.recovery.get(member, "") if number else ""
            hosted.status.phase, hosted.status.durable_seq = "serving", self.seqs[member]
        return response

    def _check(self, member):
        if member in self.silent:
            raise Unavailable("connection refused")


MACHINE = cluster_pb2.MachineStatus(open_files_limit=1024, filesystem="ext4")


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def heads():
    """What Redis answers per shard."""
    return {shard: Head(1, Position(1, 11, b"d"), 0, b"", 3, 3, 500, open=True) for shard in (0, 1)}


@pytest.fixture
def status(registry, calls, heads):
    async def head(_uid, shard):
        found = heads[shard]
        if isinstance(found, Exception):
            raise found
        return found

    registry.set(Member("coordinator-x", Role.COORDINATOR, "x:1", "1"))
    registry.leases["coordinator-x"] = registry.leases["shard-a"]
    return Status(registry, calls, head, "coordinator-x", lambda: LifecycleState.SERVING, lambda: MACHINE)


async def test_healthy_cluster_is_shown_whole(status):
    """Members, shards, logs and replicas, each with its own numbers."""
    shown = await status.get("")
    assert (shown.cluster_id, shown.incarnation, shown.registry, shown.message) == ("c1", 1, "ok", "")
    assert [(one.id, one.role, one.alive, one.lifecycle) for one in shown.members] == [
        ("coordinator-x", "coordinator", True, "SERVING"),
        ("shard-a", "shard", True, "SERVING"),
        ("shard-b", "shard", True, "SERVING"),
    ]
    assert shown.members[0].resident_bytes > 0
    shard = shown.collections[0].shards[1]
    assert (shard.shard, shard.log_state, shard.epoch, shard.log_seq, shard.log_bytes) == (1, "open", 1, 11, 500)
    assert [(one.member, one.state, one.reachable, one.durable_seq) for one in shard.replicas] == [
        ("shard-a", "in-sync", True, 5),
        ("shard-b", "in-sync", True, 9),
    ]


async def test_what_does_not_answer_is_shown_as_such(status, registry, calls, heads):
    """The status never fails for what it reports."""
    registry.set_health(RegistryHealth.UNREACHABLE)
    calls.silent.add("shard-b")
    heads[0] = Unavailable("redis is gone")
    shown = await status.get("")
    assert (shown.registry, shown.message) == ("unreachable", "it is unreachable")
    assert shown.members[2].lifecycle == ""
    assert [one.reachable for one in shown.collections[0].shards[0].replicas] == [True, False]
    assert shown.collections[0].shards[0].log_seq == 0


async def test_other_collections_can_be_left_out(status):
    """An unknown name shows none."""
    assert [one.name for one in (await status.get("docs")).collections] == ["docs"]
    assert not (await status.get("nope")).collections


async def test_coordinator_without_registry_still_answers(status, registry):
    """It says what it waits for."""
    registry.view = None
    registry.set_health(RegistryHealth.MISSING)
    shown = await status.get("")
    assert (shown.cluster_id, shown.registry) == ("", "missing")


def recovering(kit):
    return msgspec.structs.replace(kit.shard(1), log_state=LogState.RECOVERING)


async def test_recovering_shard_says_whom_it_waits_for(status, registry, calls, kit):
    """The operator learns which member to bring back."""
    registry.set(recovering(kit))
    calls.silent.add("shard-b")
    shown = (await status.get("")).collections[0].shards[1]
    assert shown.log_state == "recovering"
    assert "shard-b" in shown.message


async def test_a_recovery_that_keeps_failing_says_why(status, registry, calls, kit):
    """Every server tells of its own attempts; who held the lease knows."""
    registry.set(recovering(kit))
    calls.recovery = {"shard-b": "the recovery lease was lost"}
    shown = (await status.get("")).collections[0].shards
    assert shown[1].message == "recovery is tried again and again: the recovery lease was lost"
    assert shown[0].message == "", "the other shard's log is open"


async def test_an_open_shard_without_any_in_sync_replica_says_what_to_do(status, registry, calls, kit):
    """Nothing recovers by itself there."""
    registry.set(kit.shard(1, replicas={"shard-a": ReplicaState.IN_SYNC, "shard-b": ReplicaState.OUT_OF_SYNC}))
    calls.silent.add("shard-a")
    shown = (await status.get("")).collections[0].shards
    assert "bring back one of shard-a, or accept the loss" in shown[1].message
    assert shown[0].message == ""


async def test_a_coordinator_tells_of_its_own_machine(status):
    """Limits and disk of the asked coordinator are known without asking anybody."""
    told = {member.id: member for member in (await status.get("")).members}
    assert told["coordinator-x"].machine == MACHINE
