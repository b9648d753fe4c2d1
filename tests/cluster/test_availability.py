"""What clients see while parts of the cluster are gone: one test per row of the table of failure semantics."""

import signal
import time

import pytest
from harness.oracle import Oracle
from harness.processes import EAGER, PATIENT, frozen, ready, restart
from harness.searching import NO_RETRIES, Searches
from harness.verdict import settled, verify
from harness.waiting import until_empty
from harness.writers import Recorder

from kintsugi import AsyncClient, DeadlineExceeded, KintsugiError, Model, Unavailable
from kintsugi.ids import shard_of

pytestmark = pytest.mark.cluster

QUERY = [1.0, 0.5, 0.25, 0.0, -1.0, 2.0, 0.1, 0.7]
IDS = range(300)


async def fill(client: AsyncClient, replicas: int) -> Recorder:
    """A collection of two shards with documents, at rest."""
    await client.create_collection("docs", Model("m", 8), shards=2, replicas=replicas)
    recorder = Recorder(client, "docs", Oracle())
    await recorder.must_put(IDS)
    await settled(client)
    return recorder


async def hosted_on(client: AsyncClient, address: str) -> int:
    """The shard whose only replica a shard server holds."""
    status = await client.status()
    member = next(one.id for one in status.members if one.address == address)
    return next(s.shard for s in status.collections[0].shards if s.replicas[0].member == member)


async def unavailable_naming(client: AsyncClient, shard: int) -> None:
    async def problem() -> str:
        try:
            await client.search("docs", QUERY, k=10)
        except Unavailable as error:
            return "" if f"shard {shard}" in str(error) else f"the error does not name shard {shard}: {error}"
        return "the search was answered"

    await until_empty(problem)


async def test_without_one_shard_a_search_fails_or_says_what_is_missing(new_cluster):
    """One of two shards down, no replica: a plain search is UNAVAILABLE naming it; min_coverage=0.5 answers with the rest."""
    cluster = new_cluster(env=PATIENT)
    async with AsyncClient(cluster.addresses, retry=NO_RETRIES) as client:
        recorder = await fill(client, replicas=1)
        down = await hosted_on(client, cluster.address_of("shard-1"))
        there = {i for i in IDS if shard_of(i, 2) != down}
        assert (await client.search("docs", QUERY)).coverage.complete
        cluster.kill("shard-1")
        await unavailable_naming(client, down)
        for exact in (True, False):
            result = await client.search("docs", QUERY, k=200, exact=exact, min_coverage=0.4)
            assert {hit.id for hit in result.hits} == there if exact else {hit.id for hit in result.hits} <= there
            coverage = result.coverage
            assert (coverage.shards_total, coverage.shards_answered, coverage.complete) == (2, 1, False)
            assert (coverage.documents_total, coverage.documents_covered) == (len(IDS), len(there))
            assert [(failure.shard, failure.code) for failure in coverage.failures] == [(down, "UNAVAILABLE")]
            assert [(model.model, model.documents) for model in coverage.models] == [("m", len(there))]
        with pytest.raises(Unavailable, match=f"shard {down}"):
            await client.search("docs", QUERY, min_coverage=0.9)
        with pytest.raises(Unavailable, match=f"shard {down}"):
            await client.count("docs")
        await restart(cluster, "shard-1")
        await verify(client, "docs", recorder.oracle)


@pytest.mark.parametrize("victim", ["shard-0", pytest.param("shard-1", marks=pytest.mark.long)])
async def test_with_two_replicas_a_killed_shard_server_fails_no_search(new_cluster, victim):
    """Sixteen searchers at once see no failure when a shard server is killed, nor when it returns."""
    cluster = new_cluster(env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        recorder = await fill(client, replicas=2)

        def whole(result) -> None:
            assert result.coverage.complete
            assert len(result.hits) == 5

        async with Searches(cluster.addresses, "docs", workers=16, check=whole) as searches:
            cluster.kill(victim)
            await searches.some_more(400)
            await restart(cluster, victim)
            await searches.some_more(400)
            await settled(client)
        await recorder.must_put(range(300, 340))
        await verify(client, "docs", recorder.oracle)


async def test_a_client_with_two_addresses_survives_a_killed_coordinator(new_cluster):
    """When the coordinator in use is killed, searches and writes go on through the other one."""
    cluster = new_cluster(coordinators=2, env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        recorder = await fill(client, replicas=2)
        cluster.kill("coordinator-0")
        for number in range(10):
            result = await recorder.must_put(range(1000 + 10 * number, 1010 + 10 * number))
            assert (await client.search("docs", QUERY, at_least=result.token)).coverage.complete
        await restart(cluster, "coordinator-0")
        cluster.kill("coordinator-1")
        await recorder.must_put(range(2000, 2010))
        await restart(cluster, "coordinator-1")
        await verify(client, "docs", recorder.oracle)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_redis_searches_go_on_and_writes_are_refused(new_cluster, how):
    """Redis dead or silent: searches and reads go on, writes and creates are refused, and all recovers with it."""
    cluster = new_cluster(env=EAGER)
    async with (
        AsyncClient(cluster.addresses, retry=NO_RETRIES, timeout_s=3.0) as once,
        AsyncClient(cluster.addresses) as client,
    ):
        recorder = await fill(client, replicas=2)
        async with Searches(cluster.addresses, "docs") as searches:
            cluster.kill("valkey", how)
            for number in range(2):
                # A Redis that stands still may write later what it was sent: then the outcome is unknown.
                with pytest.raises(Unavailable if how is signal.SIGKILL else (Unavailable, DeadlineExceeded)):
                    await once.upsert("docs", [5000 + number], [QUERY])
            await searches.some_more(200)
            assert await client.count("docs") == len(IDS)
            assert len(await client.get("docs", list(IDS[:10]))) == 10
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await once.create_collection("other", Model("m", 8), timeout_s=3.0)
            if how is signal.SIGKILL:
                await restart(cluster, "valkey")
            else:
                cluster.kill("valkey", signal.SIGCONT)
            await settled(client)
        await client.delete("docs", [5000, 5001])
        await recorder.must_put(range(300, 340))
        await verify(client, "docs", recorder.oracle)


async def test_a_shard_server_restarted_without_redis_answers_searches(new_cluster):
    """Shard servers keep the registry: one that starts while Redis is down serves what it has."""
    cluster = new_cluster(env=PATIENT)
    async with AsyncClient(cluster.addresses) as client:
        recorder = await fill(client, replicas=1)
        cluster.kill("valkey")
        cluster.kill("shard-0")
        cluster.start_process("shard-0")

        async def problem() -> str:
            try:
                result = await client.search("docs", QUERY, k=300, exact=True, timeout_s=5.0)
            except KintsugiError as error:
                return str(error)
            return "" if len(result.hits) == len(IDS) else f"{len(result.hits)} hits"

        await until_empty(problem)
        await restart(cluster, "valkey")
        await recorder.must_put(range(300, 340))
        await verify(client, "docs", recorder.oracle)


async def test_a_replica_that_stands_still_slows_no_search(new_cluster):
    """SIGSTOP of one replica's server: the second try answers, within a second, under load and for a lone query."""
    cluster = new_cluster(env=PATIENT)
    async with AsyncClient(cluster.addresses) as client:
        recorder = await fill(client, replicas=2)
        async with Searches(cluster.addresses, "docs", workers=4) as searches:
            await searches.some_more(200)
            searches.slowest_s = 0.0
            with frozen(cluster, ["shard-0"]):
                await searches.some_more(400)
            assert searches.slowest_s < 3.0, "searches waited for a replica that does not answer"
        with frozen(cluster, ["shard-1"]):
            for _ in range(5):
                started = time.monotonic()
                assert (await client.search("docs", QUERY)).coverage.complete
                assert time.monotonic() - started < 3.0
            result = await recorder.must_put(range(300, 340))  # the other replica alone makes it durable
            assert (await client.search("docs", QUERY, at_least=result.token)).coverage.complete
        await verify(client, "docs", recorder.oracle)


async def test_a_restarted_cluster_gives_the_same_answers(new_cluster):
    """Everything drained and started again, then killed and started again: ids, scores and versions are the same."""
    cluster = new_cluster(env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        recorder = await fill(client, replicas=2)
        await recorder.patch(range(50))
        await recorder.delete(range(50, 80))
        await settled(client)  # one durable replica is enough to be told so: the other may still find what was deleted
        before = [await client.search("docs", QUERY, k=40, exact=exact) for exact in (True, False)]
    assert set(cluster.stop().values()) == {0}
    cluster = new_cluster(env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        for _ in range(2):
            await settled(client)
            after = [await client.search("docs", QUERY, k=40, exact=exact) for exact in (True, False)]
            for one, other in zip(before, after, strict=True):
                assert [(h.id, h.score, h.version) for h in one.hits] == [
                    (h.id, h.score, h.version) for h in other.hits
                ]
            await verify(client, "docs", recorder.oracle)
            for name in cluster.names():
                cluster.kill(name)
            for name in cluster.names():
                cluster.start_process(name)
            await ready(cluster)


async def test_a_replica_that_was_away_for_long_joins_again(new_cluster):
    """A replica out of the in-sync set, and behind a trimmed log, copies from its peer and is in sync again."""
    cluster = new_cluster(env={**EAGER, "KINTSUGI_OUT_OF_SYNC_AFTER_S": "1", "KINTSUGI_LEASE_S": "1"})
    async with AsyncClient(cluster.addresses) as client:
        recorder = await fill(client, replicas=2)
        cluster.kill("shard-1")

        async def still_in_sync() -> list[str]:
            shards = (await client.status()).collections[0].shards
            return [r.member for s in shards for r in s.replicas if not r.reachable and r.state == "in-sync"]

        await until_empty(still_in_sync)
        async with Searches(cluster.addresses, "docs"):
            for number in range(1, 20):
                await recorder.must_put(range(1000, 1100))
                await recorder.delete(range(1000, 1000 + number))
            await restart(cluster, "shard-1")
            await settled(client)
        await verify(client, "docs", recorder.oracle)
