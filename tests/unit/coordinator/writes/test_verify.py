"""Verifying a collection: who is asked, in which order, and what is told of those that cannot answer."""

import asyncio
import time

import pytest

from coordinator.deadline import Deadline
from coordinator.verify import Verify
from coordinator.views import Views
from kintsugi.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.registry.records import ReplicaState
from kintsugi.v1 import cluster_pb2


class Calls:
    """ReplicaCalls: every replica answers, or what a test says; each server takes one check at a time."""

    def __init__(self):
        self.silent = {}
        self.busy = {}
        self.asked = []
        self.running = set()
        self.held = {}

    async def verify(self, member, request, _timeout_s):
        self.asked.append((member, request))
        if member in self.silent:
            raise self.silent[member]
        if self.busy.get(member):
            self.busy[member] -= 1
            raise ResourceExhausted("busy", retry_delay_s=0.001)
        assert member not in self.running, "one check at a time"
        self.running.add(member)
        if member in self.held:
            await self.held[member].wait()
        await asyncio.sleep(0)
        self.running.discard(member)
        return shard_pb2.VerifyReplicaResponse(
            position=shard_pb2.Position(epoch=1, seq=9, digest=b"log"),
            content_digest=b"content",
            documents=5,
            index_version=2,
            encoding="i8",
            queries=request.queries,
            recall=0.5,
        )


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def verify(registry, calls, deadline):
    checks = Verify(Views(registry, time.monotonic), calls)

    async def run(until=deadline, **fields):
        request = cluster_pb2.VerifyRequest(**{"collection": "docs", **fields})
        return [response async for response in checks.run(request, until)]

    return run


async def test_every_replica_is_checked(verify, calls):
    """All replicas of all shards, each server one at a time, with the default bounds."""
    found = await verify()
    assert sorted((one.shard, one.member, one.replicas) for one in found) == [
        (0, "shard-a", 2), (0, "shard-b", 2), (1, "shard-a", 2), (1, "shard-b", 2),
    ]  # fmt: skip
    one = found[0]
    assert (one.seq, one.log_digest, one.content_digest, one.documents) == (9, b"log", b"content", 5)
    assert (one.index_version, one.encoding, one.queries, one.recall, one.failure) == (2, "i8", 100, 0.5, "")
    assert {request.k for _, request in calls.asked} == {10}


async def test_a_replica_that_cannot_be_checked_is_told(verify, calls):
    """Its reason stands where its figures would, and the others are checked."""
    calls.silent["shard-b"] = Unavailable("connection refused")
    found = {(one.shard, one.member): one.failure for one in await verify()}
    assert found == {
        (0, "shard-a"): "", (1, "shard-a"): "", (0, "shard-b"): "connection refused", (1, "shard-b"): "connection refused",
    }  # fmt: skip


async def test_a_busy_server_is_asked_again(verify, calls):
    """Another caller's check ends sooner or later."""
    calls.busy["shard-a"] = 3
    assert not any(one.failure for one in await verify())


async def test_a_server_that_stays_busy_is_told(verify, calls):
    """The deadline ends the asking."""
    calls.busy["shard-a"] = 1_000_000
    soon = Deadline.after(0.05, time.monotonic)
    failures = {one.member: one.failure for one in await verify(soon)}
    assert failures == {"shard-a": "busy", "shard-b": ""}


async def test_a_replica_out_of_sync_is_told_and_not_asked(verify, calls, registry, kit):
    """Whoever left the in-sync set may hold anything; joining ones are checked."""
    states = {"shard-a": ReplicaState.JOINING, "shard-b": ReplicaState.OUT_OF_SYNC}
    registry.set(kit.shard(0, replicas={**states, "shard-c": ReplicaState.IN_SYNC}))
    found = [one for one in await verify() if one.shard == 0]
    assert sorted((one.member, one.replicas, one.failure) for one in found) == [
        ("shard-a", 3, ""), ("shard-b", 3, "it is out of sync"), ("shard-c", 3, ""),
    ]  # fmt: skip
    assert ("shard-b", 0) not in [(member, request.replica.shard) for member, request in calls.asked]


async def test_answers_come_as_replicas_finish(registry, calls, deadline):
    """A slow server does not hold back what the others found; leaving ends the rest."""
    calls.held["shard-a"] = asyncio.Event()
    checks = Verify(Views(registry, time.monotonic), calls)
    answers = checks.run(cluster_pb2.VerifyRequest(collection="docs"), deadline)
    assert [(await anext(answers)).member for _ in range(2)] == ["shard-b", "shard-b"]
    await answers.aclose()
    assert calls.running == {"shard-a"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queries": 1001}, "queries is 1001, must be 1 to 1000"),
        ({"k": 101}, "k is 101, must be 1 to 100"),
        ({"collection": ""}, "collection has 0 characters, must have 1 to 64 characters"),
    ],
)
async def test_bounds(verify, fields, message):
    """What the proto promises."""
    with pytest.raises(InvalidArgument) as error:
        await verify(**fields)
    assert error.value.message == message


async def test_an_unknown_collection_is_not_found(verify):
    """Before anybody is asked."""
    with pytest.raises(NotFound):
        await verify(collection="nobody")
