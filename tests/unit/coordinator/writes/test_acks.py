"""Acknowledgements: who must answer, what a change of the in-sync set does, how the wait ends."""

import asyncio

import pytest

from coordinator.acks import Acknowledgements, Changes
from coordinator.deadline import Deadline
from coordinator.operations import Level, Options
from kintsugi.errors import Aborted, DeadlineExceeded, NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.append import AppendResult
from kintsugi.position import Position
from kintsugi.registry.records import ReplicaState

KEY = ("uid1", 0)
WRITTEN = AppendResult("r", 4, Position(1, 6, b"d" * 20), repeated=False)
ONE_OUT = {"shard-a": ReplicaState.IN_SYNC, "shard-b": ReplicaState.OUT_OF_SYNC}


def options(level=Level.DURABLE, replicas=1):
    return Options(level, replicas, "r")


@pytest.fixture
def acks(registry, replicas):
    return Acknowledgements(lambda: registry.view, Changes(registry.subscribe), replicas.await_write)


async def test_one_durable_replica_is_enough_by_default(acks, replicas, deadline):
    """The other one may be slow; the results come in the order of the records."""
    replicas.held["shard-b"] = asyncio.Event()
    results = await acks.wait(KEY, WRITTEN, options(), deadline)
    assert [result.version for result in results] == [4, 5, 6]
    assert {result.outcome for result in results} == {shard_pb2.RECORD_OUTCOME_APPLIED}


async def test_replicas_are_asked_for_the_exact_position(acks, replicas, deadline):
    """Epoch, sequence number and digest travel, so that no other write passes for this one."""
    await acks.wait(KEY, WRITTEN, options(Level.SEARCHABLE), deadline)
    request = replicas.asked[0][1]
    assert (request.position.epoch, request.position.seq, request.position.digest) == (1, 6, b"d" * 20)
    assert request.searchable
    assert request.outcomes_from == 4


@pytest.mark.parametrize("wanted", [options(replicas=2), options(Level.SEARCHABLE)])
async def test_wait_lasts_until_enough_replicas_answer(acks, replicas, deadline, wanted):
    """Two durable replicas, or searchable on all, needs both."""
    replicas.held["shard-b"] = asyncio.Event()
    waiting = asyncio.create_task(acks.wait(KEY, WRITTEN, wanted, deadline))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    replicas.held["shard-b"].set()
    assert len(await waiting) == 3


async def test_searchable_stops_waiting_for_a_replica_that_leaves_the_in_sync_set(
    acks, registry, replicas, deadline, kit
):
    """The in-sync set is looked at again when the registry changes."""
    replicas.held["shard-b"] = asyncio.Event()
    waiting = asyncio.create_task(acks.wait(KEY, WRITTEN, options(Level.SEARCHABLE), deadline))
    await asyncio.wait([waiting], timeout=0.02)
    registry.set(kit.shard(0, replicas=ONE_OUT))
    assert len(await waiting) == 3


async def test_answer_of_a_replica_that_left_does_not_count(acks, registry, replicas, kit):
    """Recovery would not wait for it, so what only it holds is not durable."""
    replicas.held["shard-b"] = asyncio.Event()
    soon = Deadline.after(0.2, asyncio.get_running_loop().time)
    waiting = asyncio.create_task(acks.wait(KEY, WRITTEN, options(replicas=2), soon))
    await asyncio.wait([waiting], timeout=0.02)
    registry.set(kit.shard(0, replicas={"shard-a": ReplicaState.OUT_OF_SYNC, "shard-b": ReplicaState.IN_SYNC}))
    replicas.held["shard-b"].set()
    with pytest.raises(DeadlineExceeded):
        await waiting


async def test_replica_that_left_does_not_end_the_wait(acks, registry, replicas, deadline, kit):
    """Its history went another way; the log's, and with it the write, lives on in the others."""
    replicas.held["shard-a"], replicas.silent["shard-b"] = asyncio.Event(), Aborted("another history")
    registry.set(kit.shard(0, replicas=ONE_OUT))
    waiting = asyncio.create_task(acks.wait(KEY, WRITTEN, options(), deadline))
    registry.set(kit.shard(0))
    await asyncio.wait([waiting], timeout=0)
    registry.set(kit.shard(0, replicas=ONE_OUT))
    replicas.held["shard-a"].set()
    assert len(await waiting) == 3


async def test_replica_that_cannot_answer_is_asked_again(acks, replicas, deadline):
    """A restart of the only replica that counts does not fail the write."""
    replicas.silent = {"shard-a": Unavailable("restarting"), "shard-b": Unavailable("restarting")}
    waiting = asyncio.create_task(acks.wait(KEY, WRITTEN, options(), deadline))
    await asyncio.wait([waiting], timeout=0.02)
    replicas.silent.clear()
    assert len(await waiting) == 3


async def test_deadline_leaves_the_outcome_unknown(acks, replicas):
    """The message says what the replicas said."""
    replicas.silent = {"shard-a": Unavailable("restarting"), "shard-b": Unavailable("restarting")}
    with pytest.raises(DeadlineExceeded, match="restarting") as caught:
        await acks.wait(KEY, WRITTEN, options(), Deadline.after(0.05, asyncio.get_running_loop().time))
    assert caught.value.reason == "OUTCOME_UNKNOWN"


async def test_replica_that_says_discarded_ends_the_wait(acks, replicas, deadline):
    """Recovery took another history: the write will never be there."""
    replicas.silent = {"shard-a": Aborted("discarded")}
    replicas.held["shard-b"] = asyncio.Event()
    with pytest.raises(Aborted):
        await acks.wait(KEY, WRITTEN, options(), deadline)


async def test_registry_that_tells_of_a_recovery_ends_the_wait(acks, registry, deadline, kit):
    """Epoch 2 began after sequence number 5: the write at 6 is gone."""
    registry.set(kit.shard(0, epochs=((1, 0), (2, 5))))
    with pytest.raises(Aborted):
        await acks.wait(KEY, WRITTEN, options(), deadline)


@pytest.mark.parametrize(("first_seq", "reason"), [(6, "ABORTED"), (4, "OUTCOME_UNKNOWN")])
async def test_request_that_recovery_cut_in_two_is_not_called_unwritten(
    acks, registry, deadline, kit, first_seq, reason
):
    """Epoch 2 began after sequence number 5: of a request at 4 to 6 two records are kept."""
    registry.set(kit.shard(0, epochs=((1, 0), (2, 5))))
    written = AppendResult("r", first_seq, WRITTEN.last, repeated=False)
    with pytest.raises(Aborted) as caught:
        await acks.wait(KEY, written, options(), deadline)
    assert caught.value.reason == reason


async def test_write_that_survived_a_recovery_is_acknowledged(acks, registry, deadline, kit):
    """Epoch 2 began after sequence number 6: the write at 6 is kept."""
    registry.set(kit.shard(0, epochs=((1, 0), (2, 6))))
    assert len(await acks.wait(KEY, WRITTEN, options(), deadline)) == 3


async def test_deleted_collection_ends_the_wait(acks, deadline):
    """Nobody will ever hold the write."""
    with pytest.raises(NotFound):
        await acks.wait(("gone", 0), WRITTEN, options(), deadline)
