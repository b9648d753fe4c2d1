"""Collections are encoded anew under load: searches, writes and kills go on, and nobody notices but the status.

Recall is measured on every single search: the true best of each query are known beforehand (harness/encoded.py). Each
version's own recall is what the same queries get at rest, when all replicas serve it. While one replaces the other, the
mean of any window of searches must not be below the lower of the two by more than four standard errors of such a mean
under that version: the replicas' graphs differ a little, and the queries of a window are drawn at random.
"""

import asyncio
import contextlib
import json
import os
import random
import secrets
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest
from harness.encoded import QUERIES, K, Known, Searchers, Writer, nothing_is_lost, writing
from harness.processes import EAGER, has_died, ready, rearm, restart
from harness.verdict import settled
from harness.waiting import until, until_empty

from kintsugi import AsyncClient, KintsugiError, Model
from kintsugi.cancelling import end
from kintsugi.sdk.rollout import Rollout, Step, rollout

pytestmark = pytest.mark.cluster

SEED = int(os.environ.get("KINTSUGI_TEST_SEED", "0")) or secrets.randbelow(2**31)
COLLECTION = "docs"
WINDOW = 200
# Builds take long enough to be seen and killed, and share the cores with the searchers.
SLOW_BUILDS = {**EAGER, "KINTSUGI_BUILD_CPU": "0.2"}
LEAST_TOLERANCE = 0.01


async def look(client: AsyncClient) -> Rollout:
    found = rollout(await client.status(COLLECTION), COLLECTION)
    assert found is not None
    return found


async def encoded(client: AsyncClient, timeout_s: float = 60.0) -> Rollout:
    """Waits until every replica serves what is wanted."""
    last: list[Rollout] = []

    async def problem() -> str:
        last[:] = [await look(client)]
        return "" if {one.step for one in last[0].replicas} == {Step.SERVING} else str(last[0])

    await until_empty(problem, timeout_s)
    return last[0]


async def own_recall(client: AsyncClient, known: Known) -> np.ndarray:
    """What each query finds now, when nothing changes: the mean of a few searches, which different replicas answer."""
    found = np.zeros(QUERIES)
    for _ in range(4):
        for query in range(QUERIES):
            result = await client.search(COLLECTION, known.queries[query], k=K)
            found[query] += known.recall(query, [hit.id for hit in result.hits]) / 4
    return found


def assert_never_below(recalls: list[float], one: np.ndarray, other: np.ndarray) -> None:
    lower = min((one, other), key=np.mean)
    tolerance = max(LEAST_TOLERANCE, 4 * float(lower.std()) / np.sqrt(WINDOW))
    assert len(recalls) >= WINDOW, "too few searches to tell"
    for start in range(0, len(recalls) - WINDOW + 1, WINDOW // 2):
        mean = np.mean(recalls[start : start + WINDOW])
        assert mean >= lower.mean() - tolerance, f"recall {mean:.4f} in a window, {lower.mean():.4f} by itself"


@contextlib.asynccontextmanager
async def never_two_builds(client: AsyncClient) -> AsyncIterator[list[int]]:
    """Inside the block no two replicas of a shard build beside the version they serve. Yields the shards that were seen
    building."""
    seen: list[int] = []
    wrong: list[str] = []

    async def watch() -> None:
        while True:
            with contextlib.suppress(KintsugiError):
                for shard in (await client.status(COLLECTION)).collections[0].shards:
                    building = [r.member for r in shard.replicas if {"building", "serving"} <= states(r)]
                    seen.extend([shard.shard] * len(building))
                    if len(building) > 1:
                        wrong.append(f"shard {shard.shard} is built by {building}")
            await asyncio.sleep(0.02)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        await end((task,))
    assert wrong == []


def states(replica) -> set[str]:
    return {version.state for version in replica.index_versions}


async def kintsugi_command(address: str, *arguments: str) -> tuple[int, str]:
    """The exit code and stdout of the command line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kintsugi.cli", *arguments, "--address", address, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_encoding_anew_under_load_is_noticed_by_nobody(new_cluster):
    """i8 to binary by the command, and on to f16 with a shard server killed in the middle of a build, under 16 searchers
    and a writer with deletes: no search fails or is partial, no write is lost, recall stays, replicas take turns."""
    cluster, known = new_cluster(env=SLOW_BUILDS), Known()
    async with AsyncClient(cluster.addresses) as client:
        await known.create(client, COLLECTION, "i8", shards=2, replicas=2)
        await settled(client)
        await encoded(client)
        searchers = Searchers(cluster.addresses, COLLECTION, known)
        writer = Writer(client, COLLECTION, searched=lambda: len(searchers.recalls))
        recalls, windows = [await own_recall(client, known)], []
        async with (
            searchers,
            writing(writer),
            never_two_builds(client) as seen,
        ):
            await until(lambda: len(searchers.recalls) > WINDOW, "searches before")
            before = len(searchers.recalls)
            code, told = await kintsugi_command(
                cluster.address, "collection", "encode", COLLECTION, "--encoding", "binary", "--within", "60"
            )
            assert (code, told.strip()) == (0, f"collection {COLLECTION}: 4 of 4 replicas serve binary")
            windows.append(searchers.recalls[before:])
            recalls.append(await own_recall(client, known))
            assert {0, 1} <= set(seen)

            await rearm(cluster, "shard-1", "indexer.build_step=kill@3")
            before = len(searchers.recalls)
            await client.encode_collection(COLLECTION, "f16")
            await has_died(cluster, "shard-1")
            await restart(cluster, "shard-1")
            await encoded(client)
            windows.append(searchers.recalls[before:])
            recalls.append(await own_recall(client, known))
            assert searchers.failures == []
        await settled(client)
        await nothing_is_lost(client, COLLECTION, known, writer)
        print(f"recall {[round(float(r.mean()), 4) for r in recalls]}, {writer.writes} writes, "
              f"{[len(window) for window in windows]} searches")  # fmt: skip
        for window, one, other in zip(windows, recalls, recalls[1:], strict=False):
            assert_never_below(window, one, other)


async def test_a_server_killed_around_a_swap_comes_back_and_goes_on(new_cluster):
    """kill -9 in the middle of a build, before its swap, and after it, before its checkpoint: each time the replica goes on
    from what it had on disk, and in the end serves what is wanted and holds what was written."""
    cluster, known = new_cluster(env=EAGER), Known(300)
    async with AsyncClient(cluster.addresses) as client:
        await known.create(client, COLLECTION, "i8", shards=1, replicas=2)
        await encoded(client)
        writer = Writer(client, COLLECTION)
        await rearm(cluster, "shard-0", "indexer.build_step=kill@2")
        async with writing(writer):
            await client.encode_collection(COLLECTION, "f16")
            for following in ("indexer.before_swap=kill", "indexer.after_swap=kill", ""):
                await has_died(cluster, "shard-0")
                cluster.start_process("shard-0", {"KINTSUGI_FAILPOINTS": following})
            await ready(cluster)
            await encoded(client)
        await settled(client)
        await nothing_is_lost(client, COLLECTION, known, writer)


@pytest.mark.long
async def test_many_changes_with_kills_at_random_moments_are_noticed_by_nobody(new_cluster):
    """Every kind of encoding after the other; during each change a shard server is killed, after it
    Redis, and both come back."""
    cluster, known, rng = new_cluster(env=SLOW_BUILDS), Known(), random.Random(SEED)
    print(f"KINTSUGI_TEST_SEED={SEED}")
    async with AsyncClient(cluster.addresses) as client:
        await known.create(client, COLLECTION, "i8", shards=2, replicas=2)
        await encoded(client)
        searchers = Searchers(cluster.addresses, COLLECTION, known)
        writer = Writer(client, COLLECTION, searched=lambda: len(searchers.recalls))
        async with searchers, never_two_builds(client):
            for encoding in ("binary", "f16", "recurrent-2", "e4m3", "recurrent-4", "bf16", "auto", "f32"):
                victim = rng.choice(("shard-0", "shard-1"))
                async with writing(writer):
                    await client.encode_collection(COLLECTION, encoding)
                    seen = len(searchers.recalls) + rng.randrange(1500)
                    await until(lambda seen=seen: len(searchers.recalls) >= seen, "searches before the kill")
                    cluster.kill(victim)
                    await restart(cluster, victim)
                    await encoded(client)
                # Without writers: what is in flight when Redis dies may stay unknown, which is not the question here.
                cluster.kill("valkey")
                await restart(cluster, "valkey")
                await settled(client)
            assert searchers.failures == []
        await settled(client)
        await nothing_is_lost(client, COLLECTION, known, writer)


async def test_what_a_check_refuses_is_told_with_its_reason(new_cluster):
    """The command ends with code 1 and names the replicas; the status keeps the reason; what served goes on serving."""
    cluster = new_cluster(servers=1)
    alike = np.random.default_rng(1).normal(size=(400, 8)) * 0.01
    alike[:, 0] += np.where(np.arange(400) % 2, 1000, -1000)
    async with AsyncClient(cluster.addresses) as client:
        await client.create_collection("alike", Model("m", 8), metric="l2", shards=2, encoding="f32")
        token = (await client.bulk_upsert("alike", range(400), alike, progress=False)).token
        for _ in range(2):
            code, told = await kintsugi_command(
                cluster.address, "collection", "encode", "alike", "--encoding", "i8", "--json", "--within", "60"
            )
            replicas = json.loads(told)["replicas"]
            assert code == 1
            assert [(one["step"], one["encoding"]) for one in replicas] == [("refused", "f32")] * 2
            assert all("recall of i8 is 0." in one["reason"] for one in replicas)
        shards = (await client.status("alike")).collections[0].shards
        for shard in shards:
            refused, serving = sorted(shard.replicas[0].index_versions, key=lambda v: v.state)
            assert (refused.state, serving.state, refused.version) == ("retired", "serving", serving.version + 2)
        nearest = await client.search("alike", alike[7], k=1, at_least=token)
        assert [hit.id for hit in nearest.hits] == [7]
