"""Documents are counted and deleted by filter while others write, while a shard is gone, and through the command line."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest
from harness.processes import EAGER, PATIENT, rearm, restart
from harness.searching import NO_RETRIES
from harness.verdict import settled
from harness.waiting import until

from kintsugi import AsyncClient, Model, Unavailable

pytestmark = pytest.mark.cluster

DIMENSION = 8
TRASH, KEEP = {"kind": "trash"}, {"kind": "keep"}
IS_TRASH = "kind = 'trash'"


async def fill(client: AsyncClient, name: str, count: int, replicas: int) -> None:
    """Two shards; every second document is trash."""
    await client.create_collection(name, Model("m", DIMENSION), shards=2, replicas=replicas)
    attributes = [TRASH if number % 2 else KEEP for number in range(count)]
    await client.bulk_upsert(name, range(count), vectors(range(count)), attributes=attributes, progress=False)
    await settled(client)


def vectors(ids: Iterable[int]) -> np.ndarray:
    return np.array([[number % 97 + 1.0] * DIMENSION for number in ids], dtype=np.float32)


async def attributes_of(client: AsyncClient, name: str) -> dict[object, object]:
    """When every replica holds all that was written."""
    await settled(client)
    return {found.id: found.attributes async for found in client.scroll(name, 1000, attributes=True)}


async def kintsugi(cluster, *arguments, typed: str = "") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kintsugi.cli", *map(str, arguments)),
        env={**os.environ, "KINTSUGI_ADDRESS": cluster.address},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(typed.encode()), 60)
    return process.returncode, out.decode()


async def test_documents_rewritten_by_others_survive(new_cluster):
    """While writers take documents out of the trash, exactly what stays in it is deleted, and no write of theirs is lost."""
    cluster = new_cluster(env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        await fill(client, "docs", 6000, replicas=2)
        assert await client.count("docs", filter=IS_TRASH) == 3000
        rescued = list(range(1, 6000, 6))
        written = asyncio.Event()

        async def rescue() -> None:
            """By new contents, by attributes alone before anything is deleted, and by new documents of new ids."""
            await client.update_attributes("docs", rescued[:200], [KEEP] * 200)
            written.set()
            for first in range(200, len(rescued), 50):
                ids = rescued[first : first + 50]
                await client.upsert("docs", ids, vectors(ids), attributes=[KEEP] * len(ids))
                new = [f"new-{number}" for number in ids]
                await client.upsert("docs", new, vectors(ids), attributes=[KEEP] * len(new))

        rescuing = asyncio.create_task(rescue())
        await written.wait()
        done = await client.delete_by_filter("docs", IS_TRASH)
        await rescuing
        assert await client.count("docs", filter=IS_TRASH, at_least=done.token) == 0
        left = await attributes_of(client, "docs")
        assert all(attributes == KEEP for attributes in left.values())
        assert {*range(0, 6000, 2), *rescued, *(f"new-{number}" for number in rescued[200:])} == set(left)
        assert done.deleted + done.changed <= 3000
        assert not done.more


async def test_between_the_match_and_the_delete(new_cluster, tmp_path):
    """A document that is rewritten there stays and counts as changed, though it still fulfils the filter; one that others
    deleted there counts, too."""
    paused = tmp_path / "paused"
    cluster = new_cluster(coordinators=2, env=EAGER)
    await rearm(cluster, "coordinator-1", f"delete_by_filter.after_match=pause:{paused}")
    async with AsyncClient(cluster.addresses[0]) as other, AsyncClient(cluster.addresses[1]) as client:
        await fill(other, "docs", 100, replicas=2)
        deleting = asyncio.create_task(client.delete_by_filter("docs", IS_TRASH, timeout_s=30))
        await until(paused.exists, "the delete by filter stands behind its match")
        await other.upsert("docs", [1, 3], vectors([1, 3]), attributes=[TRASH, KEEP])
        await other.delete("docs", [5])
        paused.unlink()
        done = await deleting
        assert (done.deleted, done.changed, done.more) == (47, 3, False)
        left = await attributes_of(other, "docs")
        assert set(left) == {*range(0, 100, 2), 1, 3}
        assert (left[1], left[3]) == (TRASH, KEEP)
        assert (await client.delete_by_filter("docs", IS_TRASH)).deleted == 1


async def test_without_a_shard_nothing_is_deleted_or_counted(new_cluster):
    """UNAVAILABLE naming the shard, and all is there when it is back; then the same call deletes it all."""
    cluster = new_cluster(env=PATIENT)
    async with AsyncClient(cluster.addresses, retry=NO_RETRIES) as once, AsyncClient(cluster.addresses) as client:
        await fill(client, "docs", 400, replicas=1)
        cluster.kill("shard-1")
        with pytest.raises(Unavailable, match="shard [01]"):
            await once.delete_by_filter("docs", IS_TRASH)
        with pytest.raises(Unavailable, match="shard [01]"):
            await once.count("docs", filter=IS_TRASH)
        await restart(cluster, "shard-1")
        assert await client.count("docs") == 400
        assert (await client.delete_by_filter("docs", IS_TRASH)).deleted == 200
        assert await client.count("docs") == 200


async def test_an_acknowledged_change_of_attributes_is_seen(new_cluster):
    """Whoever took a document out of the trash before the call began does not find it deleted, on whatever replica."""
    cluster = new_cluster(env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        await fill(client, "docs", 40, replicas=2)
        assert (await client.delete_by_filter("docs", IS_TRASH)).deleted == 20
        for number in range(0, 40, 2):
            await client.upsert("docs", [number], vectors([number]), attributes=[TRASH])
            await client.update_attributes("docs", [number], [KEEP])
            assert (await client.delete_by_filter("docs", {"kind": "trash"})).deleted == 0
        assert len(await attributes_of(client, "docs")) == 20


async def test_the_command_line_counts_asks_and_deletes(new_cluster):
    """A dry run changes nothing, "no" neither; --yes deletes, with a limit as many as that."""
    cluster = new_cluster(env=EAGER)
    async with AsyncClient(cluster.addresses) as client:
        await fill(client, "docs", 3000, replicas=2)
        assert await kintsugi(cluster, "count", "docs", "--filter", IS_TRASH) == (0, "1,500\n")
        delete = ("delete", "docs", "--filter", IS_TRASH)
        assert await kintsugi(cluster, *delete, "--dry-run") == (
            0, "1,500 documents of collection docs would be deleted\n",
        )  # fmt: skip
        code, said = await kintsugi(cluster, *delete, typed="n\n")
        assert code == 1
        assert "delete 1,500 documents of collection docs" in said
        assert await client.count("docs") == 3000
        code, said = await kintsugi(cluster, *delete, "--yes", "--limit", "100", "--json")
        told = json.loads(said)
        assert (code, told["deleted"], told["changed"], told["more"]) == (0, 100, 0, True)
        code, said = await kintsugi(cluster, *delete, typed="y\n")
        assert code == 0
        assert "deleted 1,400 documents of collection docs" in said
        await settled(client)
        assert json.loads((await kintsugi(cluster, "count", "docs", "--json"))[1]) == {
            "collection": "docs",
            "count": 1500,
        }
        code, said = await kintsugi(cluster, "count", "docs", "--filter", "kind = ")
        assert code == 1
        assert "filter" in said
