"""Accepting the loss of replicas: who is given up, what is kept, and when it is refused."""

import msgspec
import pytest

from coordinator.loss import AcceptLoss
from kintsugi.errors import FailedPrecondition, NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.faults import LogGap
from kintsugi.registry.records import LogState, ReplicaState

IN_SYNC, JOINING, OUT_OF_SYNC = ReplicaState.IN_SYNC, ReplicaState.JOINING, ReplicaState.OUT_OF_SYNC
KEY = ("uid1", 1)


class Calls:
    """ReplicaCalls: servers at these sequence numbers; the others are silent, or say that their replica failed."""

    def __init__(self):
        self.seqs = {"shard-a": 5, "shard-b": 9}
        self.failed = set()

    async def position(self, member, _replica):
        if member not in self.seqs:
            raise Unavailable("connection refused")
        return shard_pb2.GetPositionResponse(durable=shard_pb2.Position(epoch=1, seq=self.seqs[member]))

    async def status(self, member):
        if member not in {*self.seqs, *self.failed}:
            raise Unavailable("connection refused")
        response = shard_pb2.GetServerStatusResponse(member=member)
        hosted = response.replicas.add()
        hosted.replica.collection_uid, hosted.replica.shard = KEY
        hosted.status.phase = "failed" if member in self.failed else "serving"
        return response


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def log():
    """The sequence numbers from which a replica can follow the log."""
    return {"followed_from": set()}


@pytest.fixture
def loss(registry, calls, log):
    async def verify(_uid, _shard, _incarnation, _epoch, position):
        if position.seq not in log["followed_from"]:
            raise LogGap("the log begins later")

    return AcceptLoss(registry, calls, verify)


@pytest.fixture
def recovering(registry, kit):
    """The registry, with shard 1 recovering."""
    registry.set(msgspec.structs.replace(kit.shard(1), log_state=LogState.RECOVERING))
    return registry


@pytest.fixture
def lost(registry, calls, kit):
    """The registry, with shard 1 open and its only in-sync replica on shard-a lost; shard-b and shard-c fell behind."""
    registry.set(kit.shard(1, replicas={"shard-a": IN_SYNC, "shard-b": OUT_OF_SYNC, "shard-c": JOINING}))
    del calls.seqs["shard-a"], registry.leases["shard-a"]
    calls.seqs["shard-c"] = 7
    return registry


async def test_accepted_loss_names_what_is_given_up_and_is_idempotent(loss, recovering, calls):
    """Recovery no longer waits for the silent replica."""
    del calls.seqs["shard-b"]
    first = await loss.accept("docs", 1)
    assert list(first.given_up_members) == ["shard-b"]
    assert first.kept_seq == 5
    assert "shard-b" in first.message
    shard = recovering.view.shards[KEY]
    assert shard.given_up == ("shard-b",)
    assert shard.replicas["shard-b"] is OUT_OF_SYNC
    assert await loss.accept("docs", 1) == first


async def test_nothing_is_given_up_while_everybody_answers(loss, recovering):
    """The recovery goes on by itself."""
    assert not (await loss.accept("docs", 1)).given_up_members
    assert recovering.view.shards[KEY].given_up == ()


async def test_what_a_replica_out_of_sync_holds_is_not_promised(loss, registry, calls, kit):
    """Recovery hears those in sync only, so it keeps what they hold."""
    replicas = {"shard-a": IN_SYNC, "shard-b": OUT_OF_SYNC}
    registry.set(msgspec.structs.replace(kit.shard(1, replicas=replicas), log_state=LogState.RECOVERING))
    assert (await loss.accept("docs", 1)).kept_seq == 5


async def test_an_open_shard_whose_in_sync_replicas_are_lost_recovers_from_the_others(loss, lost):
    """The answer names the lost one and what the furthest of the others holds; recovery must then hear both others."""
    answer = await loss.accept("docs", 1)
    assert list(answer.given_up_members) == ["shard-a"]
    assert answer.kept_seq == 9
    assert answer.message.endswith("recovers without shard-a: writes after sequence number 9 are lost")
    shard = lost.view.shards[KEY]
    assert (shard.log_state, shard.given_up) == (LogState.RECOVERING, ("shard-a",))
    assert await loss.accept("docs", 1) == answer


async def test_what_is_silent_when_nobody_in_sync_is_left_is_given_up_as_well(loss, lost, calls):
    """Whoever was not counted for what is kept must not hold up the recovery."""
    del calls.seqs["shard-b"]
    answer = await loss.accept("docs", 1)
    assert list(answer.given_up_members) == ["shard-a", "shard-b"]
    assert answer.kept_seq == 7


async def test_the_only_replica_whose_disk_went_back_speaks_for_the_shard_on_the_operators_word(
    loss, registry, calls, kit
):
    """It answers, says that it failed, and the log was trimmed beyond it: the log goes on from what it holds."""
    registry.set(kit.shard(1, replicas={"shard-a": IN_SYNC}))
    calls.failed.add("shard-a")
    accepted = await loss.accept("docs", 1)
    assert (list(accepted.given_up_members), accepted.kept_seq) == ([], 5)
    assert registry.view.shards[KEY].log_state is LogState.RECOVERING


async def test_a_replica_that_failed_on_a_living_server_is_lost(loss, lost, calls):
    """A database that cannot be read does not come back with its server."""
    lost.leases["shard-a"] = lost.leases["shard-b"]
    with pytest.raises(FailedPrecondition) as caught:
        await loss.accept("docs", 1)
    assert caught.value.reason == "REPLICA_ALIVE"
    calls.failed.add("shard-a")
    assert (await loss.accept("docs", 1)).kept_seq == 9


async def test_a_replica_that_can_follow_the_log_needs_no_recovery(loss, lost, log):
    """Rebuilding from it would lose what the log still holds."""
    log["followed_from"] = {7}
    with pytest.raises(FailedPrecondition, match="shard-c") as caught:
        await loss.accept("docs", 1)
    assert caught.value.reason == "REPLICA_FOLLOWS"
    assert lost.view.shards[KEY].log_state is LogState.OPEN


async def test_a_shard_that_changes_meanwhile_is_left_alone(loss, lost, calls, kit):
    """What the operator was asked about is no longer so."""
    ask = calls.position

    async def join_while_asked(member, replica):
        if member == "shard-b":
            lost.set(kit.shard(1, replicas={"shard-a": IN_SYNC, "shard-b": IN_SYNC}))
        return await ask(member, replica)

    calls.position = join_while_asked
    with pytest.raises(Unavailable, match="changed"):
        await loss.accept("docs", 1)
    assert lost.view.shards[KEY].log_state is LogState.OPEN


async def test_who_was_given_up_and_is_back_is_better_than_nobody(loss, recovering, calls):
    """Everybody was given up in turn: the one that answers by now is heard."""
    del calls.seqs["shard-b"]
    await loss.accept("docs", 1)
    calls.seqs = {"shard-b": 9}
    answer = await loss.accept("docs", 1)
    assert (list(answer.given_up_members), answer.kept_seq) == (["shard-a"], 9)


async def test_loss_is_not_accepted_where_nothing_is_lost_or_nobody_could_recover(loss, recovering, calls, kit):
    """A shard whose in-sync replica answers loses nothing, one without any reachable replica everything."""
    recovering.set(kit.shard(1))
    with pytest.raises(FailedPrecondition) as caught:
        await loss.accept("docs", 1)
    assert caught.value.reason == "NOT_RECOVERING"
    recovering.set(msgspec.structs.replace(kit.shard(1), log_state=LogState.RECOVERING))
    calls.seqs.clear()
    with pytest.raises(FailedPrecondition) as caught:
        await loss.accept("docs", 1)
    assert caught.value.reason == "NO_REPLICA_REACHABLE"


@pytest.mark.parametrize(("name", "number"), [("nope", 0), ("docs", 2)])
async def test_loss_of_an_unknown_shard_is_not_found(loss, name, number):
    """Both the collection and the shard must exist."""
    with pytest.raises(NotFound):
        await loss.accept(name, number)
