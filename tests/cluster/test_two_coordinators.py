"""Two coordinators at once: whoever reads with the token of a write sees it, through whichever coordinator."""

import asyncio
import random

import pytest
from harness.oracle import Oracle, State, state_of, vector_of
from harness.processes import EAGER, restart
from harness.verdict import verify
from harness.waiting import until
from harness.writers import Recorder

from kintsugi import AsyncClient, Model
from kintsugi.ids import shard_of

pytestmark = pytest.mark.cluster


class Pair:
    """One writer and reader with ids of its own, which writes through one coordinator and reads through the other."""

    def __init__(self, number: int, writes: AsyncClient, reads: AsyncClient, collection: str, oracle: Oracle) -> None:
        self._number = number
        self._reads = reads
        self._collection = collection
        self._recorder = Recorder(writes, collection, oracle)
        self._rng = random.Random(number)
        self._there: dict[int, State] = {}
        self.rounds = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._write_and_read()
            self.rounds += 1

    async def _write_and_read(self) -> None:
        ids = [self._number * 1000 + self._rng.randrange(40) for _ in range(1)]
        (doc_id,) = ids
        kind = self._rng.choice(("put", "put", "patch", "delete"))
        if kind == "delete":
            result = await self._recorder.delete(ids)
            self._there.pop(doc_id, None)
        else:
            result = await (self._recorder.put if kind == "put" else self._recorder.patch)(ids)
        assert result is not None, "the write was not acknowledged"
        await self._read(doc_id, result.token)

    async def _read(self, doc_id: int, token: bytes) -> None:
        (possible,) = self._recorder.oracle._possible[doc_id]
        got = await self._reads.get(
            self._collection, [doc_id], at_least=token, attributes=True, text=True, vectors=True
        )
        assert [state_of(document) for document in got] == ([possible] if possible else []), "get missed a write"
        query = vector_of(doc_id, possible.content if possible else 1)
        result = await self._reads.search(self._collection, query, k=3, exact=True, at_least=token, attributes=True)
        found = {hit.id: hit for hit in result.hits}
        if possible is None:
            assert doc_id not in found, "search found a deleted document"
        else:
            assert found[doc_id].attributes == {"serial": possible.attributes}, "search missed a write"
            assert found[doc_id].version == possible.version


def one_per_shard(first: int) -> list[int]:
    """An id of each shard, so that the token of their write speaks of the whole collection."""
    return [next(i for i in range(first, first + 1000) if shard_of(i, 2) == shard) for shard in range(2)]


async def count_own_collection(name: str, writes: AsyncClient, reads: AsyncClient, stop: asyncio.Event) -> int:
    """Adds to and takes from a collection that nobody else writes to; every count with the token is exact."""
    await writes.create_collection(name, Model("m", 8), shards=2, replicas=2)
    recorder, rounds = Recorder(writes, name, Oracle()), 0
    while not stop.is_set():
        stays, goes = one_per_shard(2000 * rounds), one_per_shard(2000 * rounds + 1000)
        grown = await recorder.must_put([*stays, *goes])
        assert await reads.count(name, at_least=grown.token) == 2 * rounds + 4, "count missed an upsert"
        shrunk = await recorder.delete(goes)
        assert shrunk is not None
        assert await reads.count(name, at_least=shrunk.token) == 2 * rounds + 2, "count missed a delete"
        rounds += 1
    await verify(reads, name, recorder.oracle)
    return rounds


@pytest.mark.parametrize("restarted", ["", "shard-0"])
async def test_readers_never_miss_their_own_writes_across_coordinators(new_cluster, restarted):
    """Interleaved writers and at_least readers over two coordinators see every write at once, by get, search and count,
    also while a shard server is killed and returns."""
    cluster, oracle, stop = new_cluster(coordinators=2, env=EAGER), Oracle(), asyncio.Event()
    one, other = (AsyncClient([address], timeout_s=30.0) for address in cluster.addresses)
    async with one, other:
        await one.create_collection("docs", Model("m", 8), shards=2, replicas=2)
        pairs = [Pair(n, *((one, other) if n % 2 else (other, one)), "docs", oracle) for n in range(6)]

        def all_did(rounds: int) -> bool:
            return all(pair.rounds >= rounds for pair in pairs)

        async with asyncio.TaskGroup() as tasks:
            for pair in pairs:
                tasks.create_task(pair.run(stop))
            counts = [
                tasks.create_task(count_own_collection("counted-a", one, other, stop)),
                tasks.create_task(count_own_collection("counted-b", other, one, stop)),
            ]
            await until(lambda: all_did(40), "writes and reads")
            if restarted:
                cluster.kill(restarted)
                await restart(cluster, restarted)
                so_far = max(pair.rounds for pair in pairs)
                await until(lambda: all_did(so_far + 20), "writes and reads after the restart")
            stop.set()
        assert all(task.result() > 0 for task in counts)
        await verify(one, "docs", oracle)
        await verify(other, "docs", oracle)
