"""kill -9 of any single process while documents are written: nothing DURABLE is lost, nothing is double, stale or half.

KINTSUGI_TEST_SEED=N repeats the random moments of an earlier run, which printed it.
"""

import asyncio
import os
import random
import secrets

import pytest
from harness.oracle import Oracle
from harness.processes import EAGER, has_died, rearm, restart
from harness.verdict import verify
from harness.waiting import until
from harness.writers import Recorder, ingesting

from kintsugi import AsyncClient, Model

pytestmark = pytest.mark.cluster

SEED = int(os.environ.get("KINTSUGI_TEST_SEED", "0")) or secrets.randbelow(2**31)
VICTIMS = ("shard-0", "valkey", "coordinator-0", "shard-1")
WRITERS = 3
# Writes acknowledged before the kill, at most, and after the restart, at least.
WRITES_BEFORE = 60
WRITES_AFTER = 30


async def create(client: AsyncClient, replicas: int) -> None:
    await client.create_collection("docs", Model("m", 8), shards=2, replicas=replicas)


async def kill_once(cluster, victim: str, replicas: int, rng: random.Random) -> None:
    oracle = Oracle()
    async with AsyncClient(cluster.addresses) as client:
        await create(client, replicas)
        recorders = [Recorder(client, "docs", oracle) for _ in range(WRITERS)]
        async with ingesting(recorders, rng):
            before = rng.randint(1, WRITES_BEFORE)
            await until(lambda: oracle.acknowledged >= before, "writes before the kill")
            await asyncio.sleep(rng.uniform(0, 0.05))  # the random moment itself, between two acknowledgements
            cluster.kill(victim)
            killed_at = oracle.acknowledged
            await restart(cluster, victim)
            await until(lambda: oracle.acknowledged >= killed_at + WRITES_AFTER, "writes after the restart")
        print(f"{victim}: {oracle.acknowledged} writes acknowledged, {oracle.unknown} unknown")
        await verify(client, "docs", oracle, seed=rng.randrange(2**31))


@pytest.mark.parametrize(
    "moment", [*range(5), *(pytest.param(moment, marks=pytest.mark.long) for moment in range(5, 30))]
)
async def test_a_process_killed_at_a_random_moment_loses_nothing(new_cluster, moment):
    """kill -9 of one process at a random moment of an ingest, and its restart, leave every acknowledged write in place."""
    rng = random.Random(SEED * 1000 + moment)
    victim, replicas = VICTIMS[moment % len(VICTIMS)], rng.choice((1, 2))
    print(f"KINTSUGI_TEST_SEED={SEED} moment {moment}: {victim}, {replicas} replicas")
    await kill_once(new_cluster(env=EAGER), victim, replicas, rng)


@pytest.mark.parametrize(
    ("victim", "failpoint", "replicas"),
    [
        ("coordinator-0", "writes.before_append=kill@20", 1),
        ("coordinator-0", "writes.after_append=kill@20", 2),
        ("shard-0", "replay.before_commit=kill@15", 1),
        ("shard-0", "replay.after_commit=kill@15", 1),
        ("shard-0", "replay.after_commit=kill@15", 2),
        ("shard-0", "indexer.after_apply=kill@15", 1),
        ("shard-0", "checkpoint.before_rename=kill@2", 1),
        ("shard-0", "checkpoint.after_rename=kill@2", 2),
    ],
)
async def test_a_process_killed_at_a_point_of_the_write_path_loses_nothing(new_cluster, victim, failpoint, replicas):
    """kill -9 before the log, after it, between database and index, and around a checkpoint's rename loses nothing."""
    cluster, oracle, rng = new_cluster(env=EAGER), Oracle(), random.Random(replicas)
    async with AsyncClient(cluster.addresses) as client:
        await create(client, replicas)
        await rearm(cluster, victim, failpoint)
        async with ingesting([Recorder(client, "docs", oracle) for _ in range(WRITERS)], rng):
            await has_died(cluster, victim)
            killed_at = oracle.acknowledged
            await restart(cluster, victim)
            await until(lambda: oracle.acknowledged >= killed_at + WRITES_AFTER, "writes after the restart")
        await verify(client, "docs", oracle)


async def test_everything_killed_at_once_loses_nothing(new_cluster):
    """After kill -9 of all processes in the middle of an ingest, the restarted cluster holds every acknowledged write."""
    cluster, oracle, rng = new_cluster(env=EAGER), Oracle(), random.Random(1)
    async with AsyncClient(cluster.addresses) as client:
        await create(client, 2)
        async with ingesting([Recorder(client, "docs", oracle) for _ in range(WRITERS)], rng):
            await until(lambda: oracle.acknowledged >= WRITES_BEFORE, "writes before the kill")
            for name in cluster.names():
                cluster.kill(name)
            for name in cluster.names():
                cluster.start_process(name)
            await until(lambda: oracle.acknowledged >= 2 * WRITES_BEFORE, "writes after the restart")
        await verify(client, "docs", oracle)
