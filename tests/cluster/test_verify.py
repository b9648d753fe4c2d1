"""Replicas are compared and searches measured: on demand, while writes go on, and in the background."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import lmdb
import numpy as np
import pytest
from harness.processes import EAGER, ready
from harness.verdict import settled
from harness.waiting import until_empty

from kintsugi import Agreement, AsyncClient, Model, verdicts

pytestmark = pytest.mark.cluster

DIMENSION = 16
COUNT = 3000
VECTORS = np.random.default_rng(5).standard_normal((COUNT, DIMENSION)).astype(np.float32)


async def fill(client: AsyncClient) -> None:
    """Two shards of two replicas, with updates, patches and deletes behind them."""
    await client.create_collection("docs", Model("m", DIMENSION), shards=2, replicas=2)
    attributes = [{"n": number, "even": number % 2 == 0} for number in range(COUNT)]
    await client.bulk_upsert("docs", range(COUNT), VECTORS, attributes=attributes, progress=False)
    await client.upsert("docs", range(100), VECTORS[:100], texts=["again"] * 100)
    await client.update_attributes("docs", range(50), [{"patched": True}] * 50)
    await client.delete("docs", range(100, 200))
    await settled(client)


async def kintsugi(cluster, *arguments):
    """The exit code, stdout and stderr of a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kintsugi.cli", *map(str, arguments)),
        env={**os.environ, "KINTSUGI_ADDRESS": cluster.address},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def metrics(cluster, name) -> str:
    url = f"http://{cluster.metrics_address_of(name)}/metrics"
    with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
        return answer.read().decode()


def damage(folder: Path) -> None:
    """Turns a bit of one stored vector, as a disk might."""
    (data,) = folder.glob("**/0/db/data.mdb")
    with lmdb.open(str(data.parent), max_dbs=32, map_size=2**30) as env:
        vectors = env.open_db(b"vectors", create=False)
        with env.begin(write=True) as txn:
            cursor = txn.cursor(vectors)
            assert cursor.first()
            value = bytearray(cursor.value())
            value[2] ^= 1
            txn.put(cursor.key(), bytes(value), db=vectors)


async def test_replicas_are_compared_and_a_damaged_one_is_found(new_cluster):
    """Equal replicas agree and find what is there; one changed bit and a server that is gone are told, with exit code 1."""
    cluster = new_cluster(env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        await fill(client)
        code, out, _ = await kintsugi(cluster, "verify", "docs", "--json", "--min-recall", "0.9")
        told = json.loads(out)
        assert (code, told["good"]) == (0, True)
        for shard in told["shards"]:
            assert (shard["agreement"], len(shard["replicas"])) == ("agree", 2)
            assert shard["recall"] >= 0.95
            assert {one["queries"] for one in shard["replicas"]} == {100}
        assert sum(shard["replicas"][0]["documents"] for shard in told["shards"]) == COUNT - 100

        cluster.stop_process("shard-1")
        code, out, _ = await kintsugi(cluster, "verify", "docs", "--within", "20")
        assert code == 1
        assert out.count("unchecked") == 4, out
        damage(cluster.data_of("shard-1"))
        cluster.start_process("shard-1")
        await ready(cluster)
        await settled(client)
        by_shard = verdicts([check async for check in client.verify("docs", queries=5)])
        assert [one.agreement for one in by_shard] == [Agreement.DIFFER, Agreement.AGREE]
        code, out, _ = await kintsugi(cluster, "verify", "docs", "--queries", "5")
        assert code == 1
        assert "hold different contents at sequence number" in out


async def test_searches_and_writes_go_on_meanwhile(new_cluster):
    """Checks of a collection that is written to find no fault with it; two at once take turns."""
    cluster = new_cluster(env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        await fill(client)
        done = asyncio.Event()

        async def write() -> int:
            rounds = 0
            while not done.is_set():
                ids = np.arange(200, 300) + 100 * (rounds % 20)
                # Turned, so that they stay as far apart as they were.
                await client.upsert("docs", ids, np.roll(VECTORS[ids], rounds, axis=1))
                await client.delete("docs", ids[:10])
                assert len(await client.search("docs", VECTORS[rounds % COUNT])) == 10
                rounds += 1
            return rounds

        async def check() -> None:
            found = [one async for one in client.verify("docs", queries=20)]
            assert not [one.failure for one in found if one.failure]
            told = verdicts(found)
            assert {one.agreement for one in told} <= {Agreement.AGREE, Agreement.NOT_COMPARED}
            assert min(one.recall for one in told) >= 0.9

        writing = asyncio.create_task(write())
        await asyncio.gather(check(), check())
        await check()
        done.set()
        assert await writing > 0


async def test_the_recall_of_live_searches_is_told(new_cluster):
    """Searches of clients, with a filter and without, are repeated exactly, and what they found stands in status and
    metrics."""
    cluster = new_cluster(env={**EAGER, "KINTSUGI_RECALL_SAMPLES_PER_MINUTE": "6000"})
    async with AsyncClient(cluster.addresses) as client:
        await fill(client)
        searched = 0

        async def unmeasured() -> str:
            nonlocal searched
            for _ in range(20):
                only = "even = true" if searched % 2 else None
                await client.search("docs", VECTORS[searched % COUNT], filter=only)
                searched += 1
            versions = [
                version
                for shard in (await client.status("docs")).collections[0].shards
                for replica in shard.replicas
                for version in replica.index_versions
                if version.state == "serving"
            ]
            assert all(version.live_recall is None or version.live_recall > 0.8 for version in versions)
            measured = sum(version.live_recall is not None for version in versions)
            told = await metrics(cluster, "shard-0") + await metrics(cluster, "shard-1")
            recalls = "".join(line for line in told.splitlines() if line.startswith("kintsugi_search_recall{"))
            missing = [kind for kind in ("plain", "filtered") if f'searches="{kind}"' not in recalls]
            return (
                ""
                if measured >= 2 and not missing
                else f"{measured} replicas tell their recall, none of {missing} searches"
            )

        await until_empty(unmeasured)
        code, out, _ = await kintsugi(cluster, "status", "--json")
        assert code == 0
        assert "live_recall" in out
