"""Redis loses something: searches go on, writes are refused until recovery is done, nothing DURABLE that a reachable
replica holds is lost, and no replica applies a fork.
"""

import asyncio
import contextlib
import random
import shutil
import time
from pathlib import Path

import pytest
import redis
from harness.oracle import Oracle
from harness.processes import PATIENT, frozen, ready, rearm, reviving
from harness.redis_damage import append_forged, drop_connections, flush, flush_after, lose_last_entries
from harness.searching import NO_RETRIES, Searches
from harness.verdict import position_of, settled, verify
from harness.waiting import until, until_empty
from harness.writers import Recorder, ingesting

from kintsugi import AsyncClient, DeadlineExceeded, KintsugiError, Model, Unavailable
from kintsugi.ids import shard_of
from kintsugi.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

SERVERS = ("shard-0", "shard-1")


class Scene:
    """A cluster with one collection of two replicas per shard and some documents, all searchable."""

    def __init__(self, cluster: LocalCluster, shards: int) -> None:
        self.cluster = cluster
        self.shards = shards
        self.oracle = Oracle()
        self.client = AsyncClient(cluster.addresses)
        self.recorder = Recorder(self.client, "docs", self.oracle)
        self.uid = ""

    async def __aenter__(self) -> "Scene":
        await self.client.create_collection("docs", Model("m", 8), shards=self.shards, replicas=2)
        self.uid = (await self.client.collection("docs")).uid
        await self.recorder.must_put(range(100))
        await self.recorder.delete(range(90, 100))
        await self.recorder.patch(range(5))
        await settled(self.client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    @property
    def redis(self) -> str:
        return self.cluster.redis_url

    def searches(self) -> Searches:
        return Searches(self.cluster.addresses, "docs", timeout_s=20.0)

    async def member(self, name: str) -> str:
        status = await self.client.status()
        return next(m.id for m in status.members if m.address == self.cluster.address_of(name))

    async def refused(self, ids: list[int]) -> None:
        """A write that is refused as UNAVAILABLE, without a second attempt. Tells the oracle nothing: it is not there."""
        async with AsyncClient(self.cluster.addresses, retry=NO_RETRIES) as client:
            with pytest.raises(Unavailable):
                await Recorder(client, "docs", Oracle()).client.upsert("docs", ids, [[1.0] * 8] * len(ids))

    async def writes_again(self) -> None:
        """Waits for a new write to be acknowledged."""
        rounds = [0]

        async def problem() -> str:
            rounds[0] += 1
            first = 10_000 + 100 * rounds[0]
            result = await self.recorder.put(range(first, first + 20), timeout_s=5.0)
            return "" if result is not None and result.applied == 20 else "writes are still refused"

        await until_empty(problem)

    async def verify(self) -> None:
        await verify(self.client, "docs", self.oracle)

    def put_aside(self) -> list[Path]:
        """The tails that replicas had applied and that were not the shard's history in the end."""
        return [path for name in SERVERS for path in (self.cluster.data_of(name) / "diverged").glob("*.jsonl")]


@contextlib.asynccontextmanager
async def scene(new_cluster, *, shards: int = 2, env: dict[str, str] | None = None):
    async with Scene(new_cluster(env=env or PATIENT), shards) as made:
        yield made


async def test_a_flushed_redis_is_restored_from_the_replicas(new_cluster):
    """FLUSHALL under a running cluster: writes are refused at once, taken again after recovery, and nothing is lost."""
    async with scene(new_cluster) as here:
        before = await here.client.status()
        async with here.searches():
            flush(here.redis)
            await here.refused([500, 501, 502])
            await here.writes_again()
        after = await settled(here.client)
        assert after.incarnation > before.incarnation
        assert all(shard.epoch == 2 for shard in after.collections[0].shards)
        await here.verify()


async def test_a_flushed_redis_under_load_loses_nothing(new_cluster):
    """FLUSHALL in the middle of an ingest, three times over, loses no acknowledged write."""
    async with scene(new_cluster) as here:
        rng = random.Random(3)
        async with (
            here.searches(),
            ingesting([Recorder(here.client, "docs", here.oracle) for _ in range(2)], rng),
        ):
            for _ in range(3):
                seen = here.oracle.acknowledged
                await until(lambda seen=seen: here.oracle.acknowledged >= seen + 20, "writes between two losses")
                flush(here.redis)
            seen = here.oracle.acknowledged
            await until(lambda: here.oracle.acknowledged >= seen + 20, "writes after the last loss")
        await here.verify()


async def lose_redis_and_one_replica(here: Scene) -> None:
    """Leaves Redis empty, and the last acknowledged documents on shard-1 alone, which is down."""
    with frozen(here.cluster, ["shard-0"]):
        await reads_are_over(here)  # else the first entries still reach it
        await here.recorder.must_put(range(200, 230))
        await here.recorder.delete(range(10))
        here.cluster.kill("shard-1")
        flush(here.redis)


async def waits_for(here: Scene, member: str) -> None:
    """The status says that recovery waits for a member, and writes are refused meanwhile."""

    async def problem() -> str:
        shards = (await here.client.status()).collections[0].shards
        return "" if all(member in shard.message for shard in shards) else str(shards)

    await until_empty(problem)
    await here.refused([500, 501, 502])


async def test_recovery_waits_for_an_in_sync_replica_that_is_down(new_cluster):
    """FLUSHALL with one replica down: writes wait for it, the status names it, and its documents are back with it."""
    async with scene(new_cluster) as here:
        member = await here.member("shard-1")
        await lose_redis_and_one_replica(here)
        async with here.searches():
            await waits_for(here, member)
            here.cluster.start_process("shard-1")
            await here.writes_again()
        await here.verify()


async def test_an_operator_may_give_up_a_replica_that_is_down(new_cluster):
    """accept_loss lets recovery go on without the replica that is down; its divergent tail is put aside when it returns."""
    async with scene(new_cluster) as here:
        member = await here.member("shard-1")
        kept = {shard: (await here.client.status()).collections[0].shards[shard].log_seq for shard in range(2)}
        pinned = Oracle()
        pinned._possible = dict(here.oracle._possible)
        await lose_redis_and_one_replica(here)
        async with here.searches():
            await waits_for(here, member)
            for shard in range(2):
                accepted = await here.client.accept_loss("docs", shard)
                assert accepted.given_up_members == (member,)
                assert accepted.kept_seq == kept[shard]
            here.oracle = here.recorder.oracle = pinned  # what only shard-1 held is lost, with the operator's word
            await here.writes_again()
            here.cluster.start_process("shard-1")
            await settled(here.client)
        await here.verify()
        assert len(here.put_aside()) == 2
        assert all(here.cluster.data_of("shard-1") in path.parents for path in here.put_aside())


@pytest.mark.parametrize("rounds", [6, pytest.param(40, marks=pytest.mark.long)])
async def test_a_flush_that_races_with_creating_collections_forks_nothing(new_cluster, rounds):
    """FLUSHALL before, during or after `create`: a collection that was acknowledged is there afterwards, with all others."""
    async with scene(new_cluster, shards=1) as here:
        rng = random.Random(5)
        created = []
        async with here.searches():
            for round_ in range(rounds):
                name = f"raced-{round_}"
                async with AsyncClient(here.cluster.addresses, retry=NO_RETRIES) as once:
                    creating = asyncio.create_task(once.create_collection(name, Model("m", 8), shards=1, replicas=2))
                    await flush_after(here.redis, rng.uniform(0, 0.25) if round_ % 3 else 0)
                    with contextlib.suppress(Unavailable, DeadlineExceeded):
                        created.append(await creating)
                await here.client.create_collection(name, Model("m", 8), shards=1, replicas=2)
                await here.writes_again()
        await here.verify()
        there = {collection.name: collection.uid for collection in await here.client.collections()}
        assert set(there) == {"docs", *(f"raced-{round_}" for round_ in range(rounds))}
        for collection in created:
            assert there[collection.name] == collection.uid, "an acknowledged collection was replaced"
        for name in there:
            oracle = here.oracle if name == "docs" else Oracle()
            await Recorder(here.client, name, oracle).must_put(range(40, 60))
            await verify(here.client, name, oracle)


async def test_an_older_redis_written_to_before_any_replica_reconnects_is_not_followed(new_cluster):
    """An old AOF that went on without the replicas: a fresh coordinator writes nothing, and what was forged is not applied."""
    async with scene(new_cluster) as here:
        cluster = here.cluster
        cluster.stop_process("valkey")
        shutil.copytree(cluster.data_of("valkey"), cluster.data / "older")
        await asyncio.to_thread(restart_valkey, cluster)
        await here.writes_again()
        await here.recorder.delete(range(20, 30))
        for name in reversed(cluster.names()):
            cluster.kill(name)
        shutil.rmtree(cluster.data_of("valkey"))
        shutil.copytree(cluster.data / "older", cluster.data_of("valkey"))
        shutil.rmtree(cluster.data_of("coordinator-0"))
        await asyncio.to_thread(restart_valkey, cluster)
        cluster.start_process("coordinator-0")
        await coordinator_answers(here)
        await here.refused([600, 601, 602])
        for shard in range(2):
            ids = [i for i in range(700, 1000) if shard_of(i, 2) == shard][:60]
            await append_forged(here.redis, here.uid, shard, ids)
        for name in SERVERS:
            cluster.start_process(name)
        await here.writes_again()
        await here.verify()
        assert not here.put_aside(), "a fork was applied"


def restart_valkey(cluster: LocalCluster) -> None:
    cluster.start_process("valkey")
    cluster._wait_for_valkey()


async def coordinator_answers(here: Scene) -> None:
    async def problem() -> str:
        try:
            return "" if (await here.client.status()).collections else "the registry is empty"
        except KintsugiError as error:
            return str(error)

    await until_empty(problem)


@pytest.mark.parametrize("replaced", [3, 6, 10])
async def test_entries_replaced_inside_an_epoch_are_not_applied(new_cluster, replaced):
    """Six entries lost and fewer, as many, or more others in their place: replicas keep theirs and the log is rebuilt."""
    async with scene(new_cluster, shards=1) as here:
        with frozen(here.cluster, ["shard-1"]):  # for which the log is kept
            await put_apart(here, range(200, 206))
        await settled(here.client)
        async with here.searches():
            with frozen(here.cluster, SERVERS):
                lose_last_entries(here.redis, here.uid, 0, 6)
                await append_forged(here.redis, here.uid, 0, range(700, 700 + replaced))
                drop_connections(here.redis)
            await recovered(here, epoch=2)
            await here.writes_again()
        await here.verify()
        assert not here.put_aside(), "a fork was applied"


@pytest.mark.parametrize(("replaced", "packed"), [(6, False), (12, True)], ids=["alike", "by a larger entry"])
async def test_a_lagging_replica_does_not_follow_replaced_entries(new_cluster, replaced, packed):
    """A replica that stood still and resumes after a lossy failover asks its peers before it applies what is new, also
    when theirs end inside of it."""
    async with scene(new_cluster, shards=1) as here:
        behind = await position_of(here.cluster.address_of("shard-1"), here.uid, 0)
        async with here.searches():
            with frozen(here.cluster, ["shard-1"]):
                await put_apart(here, range(200, 206))
                await reads_are_over(here)
                with frozen(here.cluster, ["shard-0"]):
                    lose_last_entries(here.redis, here.uid, 0, 6)
                    await append_forged(here.redis, here.uid, 0, range(700, 700 + replaced), packed=packed)
                    drop_connections(here.redis)
                ahead = await position_of(here.cluster.address_of("shard-0"), here.uid, 0)
                assert ahead.seq == behind.seq + 6
            await recovered(here, epoch=2)
            await here.writes_again()
        await here.verify()
        assert not here.put_aside(), "a fork was applied"


async def put_apart(here: Scene, numbers: range) -> None:
    """Writes documents by requests of their own, so that each has an entry of its own in the log."""
    for number in numbers:
        await here.recorder.must_put([number])


async def reads_are_over(here: Scene) -> None:
    """Waits until Redis has answered whatever was asked before: frozen processes find the answers when they resume, and
    nothing tells them that their connections broke later."""
    began = time.monotonic()
    with redis.Redis.from_url(here.redis) as client:

        async def problem() -> list[dict[str, str]]:
            passed_s = time.monotonic() - began
            return [one for one in client.client_list() if "b" in one["flags"] and int(one["idle"]) + 1 >= passed_s]

        await until_empty(problem)


async def recovered(here: Scene, *, epoch: int) -> None:
    async def problem() -> str:
        shards = (await here.client.status()).collections[0].shards
        return "" if all(s.epoch == epoch and s.log_state == "open" for s in shards) else str(shards)

    await until_empty(problem)


async def test_a_redis_wiped_while_everything_was_stopped_is_restored(new_cluster):
    """The whole cluster stops, the Valkey folder is lost, and the next start restores it from the shard servers."""
    async with scene(new_cluster) as here:
        here.cluster.stop()
        shutil.rmtree(here.cluster.data_of("valkey"))
        cluster = new_cluster(env=PATIENT)
        assert cluster.data == here.cluster.data
        async with here.searches():
            await here.writes_again()
        await here.verify()


@pytest.mark.parametrize(
    "failpoint", [pytest.param("recovery.after_registry=kill", marks=pytest.mark.long), "recovery.mid_log=kill@2"]
)
async def test_a_recovery_that_dies_half_way_is_taken_up_again(new_cluster, failpoint):
    """kill -9 of the shard server that recovers, after the registry or in the middle of a log: recovery still completes."""
    async with scene(new_cluster, env=PATIENT) as here:
        for name in SERVERS:
            await rearm(here.cluster, name, failpoint)
        await settled(here.client)
        with frozen(here.cluster, ["shard-1"]):
            await reads_are_over(here)
            # More than one chunk per shard that only shard-0 holds: the logs are refilled from there.
            await here.recorder.must_put(range(1000, 2000))
            flush(here.redis)
        async with reviving(here.cluster, SERVERS) as revived:
            await until(lambda: bool(revived), "the one that recovers dies")
            await here.writes_again()
        await ready(here.cluster)
        await here.verify()
