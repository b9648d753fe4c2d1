"""A collection moves to another model under load, and back."""

import asyncio
import contextlib

import numpy as np
import pytest
from harness.processes import EAGER, restart
from harness.upgraded import (
    EMBED,
    Searchers,
    Writer,
    command,
    created,
    done,
    holds_exactly,
    planned,
    text_of,
    writing,
)
from harness.verdict import settled
from harness.waiting import until, until_empty

from kintsugi import AsyncClient, FailedPrecondition

pytestmark = pytest.mark.cluster

COLLECTION = "docs"
DOCUMENTS = 1200


async def state(client: AsyncClient) -> str:
    return str((await client.upgrade_status(COLLECTION)).upgrade.state)


async def reached(client: AsyncClient, *wanted: str) -> None:
    async def problem() -> str:
        found = await state(client)
        return "" if found in wanted else f"the upgrade is {found}, not {' or '.join(wanted)}"

    await until_empty(problem)


async def migrated(client: AsyncClient, fraction: float) -> None:
    async def problem() -> str:
        found = (await client.upgrade_status(COLLECTION)).migrated
        return "" if found is not None and found >= fraction else f"{found} of the documents are migrated"

    await until_empty(problem, 120.0)


async def backfill(address: str, folder) -> asyncio.subprocess.Process:
    # What a killed worker had pulled comes back when its lease is over: well before the test gives up.
    options = ("--embed", "embedding:embed", "--batch", 20, "--lease", 10)
    return await command(address, folder, "backfill", COLLECTION, *options)


async def test_an_upgrade_under_load_with_every_kind_of_process_killed(new_cluster, tmp_path):
    """Sixteen searchers, half of each model, and four writers with deletes; a shard server, a worker, a coordinator and Redis
    are killed once: no search fails, nothing deleted comes back, no stale vector stays, exactly the oracle's documents."""
    cluster = new_cluster(servers=2, coordinators=2, env=EAGER)
    async with AsyncClient(cluster.addresses, timeout_s=30) as client, contextlib.AsyncExitStack() as old_clients:
        there = await created(client, COLLECTION, DOCUMENTS, shards=2, replicas=2)
        writers = [Writer(client, COLLECTION, number, "old") for number in range(4)]
        await planned(cluster.address, tmp_path, COLLECTION)
        ids = range(DOCUMENTS)
        async with writing(writers):
            old = await old_clients.enter_async_context(Searchers(cluster.addresses, COLLECTION, "old", ids))
            await until(lambda: old.answered > 100, "searches of the old model")
            await client.upgrade_start(COLLECTION)
            async with Searchers(cluster.addresses, COLLECTION, "new", ids) as new:
                for writer in writers[:2]:
                    writer.model = "new"
                cluster.kill("shard-1")
                await until(lambda: new.answered > 100, "searches of the new model beside a dead server")
                await restart(cluster, "shard-1")
                await reached(client, "backfilling")

                first = await backfill(cluster.address, tmp_path)
                await migrated(client, 0.2)
                first.kill()
                await first.wait()
                second = await backfill(cluster.addresses[-1], tmp_path)
                cluster.kill("coordinator-0")
                await migrated(client, 0.4)
                await restart(cluster, "coordinator-0")

                for writer in writers:
                    await writer.pause()
                cluster.kill("valkey")
                await restart(cluster, "valkey")
                await settled(client)
                for writer in writers:
                    writer.model = "new"
                    writer.may_write.set()
                await done(second)
                await done(await backfill(cluster.address, tmp_path))
                await migrated(client, 1.0)
                await client.upgrade_cut_over(COLLECTION)
                seen = new.answered
                await until(lambda: new.answered > seen + 100, "searches after the cut-over")
                assert old.answered > 0
                await old_clients.aclose()
                await client.upgrade_finish(COLLECTION)
                await reached(client, "finished")
                seen = new.answered
                await until(lambda: new.answered > seen + 100, "searches after the end")
        await settled(client)
        for writer in writers:
            there |= writer.there
        await holds_exactly(client, COLLECTION, there, {"new"})
        with pytest.raises(FailedPrecondition, match="old"):
            await client.search(COLLECTION, EMBED["old"]([text_of(0, 0)])[0], model="old")


@pytest.mark.parametrize("at", ["planned", "backfilling", "cut-over"])
async def test_a_rollback_gives_the_old_answers_back(new_cluster, tmp_path, at):
    """From whatever state: exact answers for what has an old vector, the rest present and flagged; the new model is refused."""
    cluster = new_cluster(servers=1)
    async with AsyncClient(cluster.addresses, timeout_s=30) as client:
        there = await created(client, COLLECTION, 300, shards=2, replicas=1)
        queries = EMBED["old"]([text_of(number, 7) for number in range(10)])
        before = [await client.search(COLLECTION, query, k=10) for query in queries]
        await planned(cluster.address, tmp_path, COLLECTION, "--min-migrated", "0.01", "--min-recall", "0.5")
        newcomers: list[int] = []
        if at != "planned":
            await client.upgrade_start(COLLECTION)
            await reached(client, "backfilling")
            newcomers = list(range(1000, 1040))
            texts = [text_of(one, 0) for one in newcomers]
            await client.upsert(COLLECTION, newcomers, {"new": EMBED["new"](texts)}, texts=texts)
            there |= dict.fromkeys(newcomers, 0)
        if at == "cut-over":
            await client.upgrade_cut_over(COLLECTION)
            with pytest.raises(FailedPrecondition, match="lack"):
                await client.upgrade_finish(COLLECTION)
        await client.upgrade_rollback(COLLECTION)
        await reached(client, "rolled-back")
        await settled(client)
        for query, hits in zip(queries, before, strict=True):
            found = await client.search(COLLECTION, query, k=10 + len(newcomers))
            own = [(hit.id, hit.score) for hit in found if not hit.projected]
            assert own[:10] == [(hit.id, hit.score) for hit in hits][: len(own)]
            assert {hit.id for hit in found if hit.projected} <= set(newcomers)
        everything = await client.search(COLLECTION, queries[0], k=len(there), exact=True)
        assert {hit.id for hit in everything if hit.projected} == set(newcomers)
        assert len(everything.hits) == len(there)
        with pytest.raises(FailedPrecondition):
            await client.search(COLLECTION, EMBED["new"]([text_of(0, 0)])[0], model="new")
        await holds_exactly(client, COLLECTION, there, None)
        if newcomers:
            await done(await command(
                cluster.address, tmp_path, "backfill", COLLECTION, "--embed", "embedding:embed_old", "--model", "old"
            ))  # fmt: skip
            everything = await client.search(COLLECTION, queries[0], k=len(there), exact=True)
            assert not any(hit.projected for hit in everything)
            expected = EMBED["old"]([text_of(1000, 0)])[0]
            assert [hit.id for hit in await client.search(COLLECTION, expected, k=1)] == [1000]
            assert np.allclose(
                (await client.get(COLLECTION, [1000], vectors=True)).documents[0].vectors["old"], expected
            )
