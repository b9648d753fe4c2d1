"""The log on a Redis Cluster, which refuses scripts whose keys lie in several slots."""

import asyncio

from kintsugi.log.append import AppendRequest, LogTarget, LogWriter
from kintsugi.log.payload import Payload
from kintsugi.log.positions import LogPositions
from kintsugi.log.read import LogReader
from kintsugi.log.restore import LogRestorer
from kintsugi.position import START
from kintsugi.redis_client import connect


async def test_all_calls_work_on_a_redis_cluster(new_valkey, keys):
    """Every key of a log lies in one slot, and the cluster client finds it."""
    server = new_valkey(
        "cluster", durable=False, options=("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    )
    single = connect(server.url)
    await single.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    async with asyncio.timeout(20):
        while b"cluster_state:ok" not in await single.execute_command("CLUSTER", "INFO"):
            pass
    await single.aclose()
    client = connect(f"cluster://127.0.0.1:{server.port}")
    writer = LogWriter(client, keys, max_log_bytes=10**7)
    for shard in range(3):
        reader = LogReader(client, keys, "c", shard)
        await writer.create("c", shard, 1, 1, ["a"])
        group = [AppendRequest("{r}1", [Payload(b"a")]), AppendRequest("r2", [Payload(b"b")])]
        results = await writer.append(LogTarget("c", shard, 1, 1, START), group, 5.0)
        entries = await reader.read(1, 0, 10, block_ms=100)
        assert [entry.position for entry in entries] == [result.last for result in results]
        assert await reader.entry(1, 2) == entries[1]
        positions = LogPositions(client, keys)
        assert (await positions.report("c", shard, "a", 1)).held
        assert await positions.all("c", shard) == {"a": 1}
        await positions.drop("c", shard, "a")
        restorer = LogRestorer(client, keys)
        await restorer.begin("c", shard, 1, 2, base=entries[0].position, positions={})
        await restorer.append("c", shard, 1, 2, [(2, Payload(entries[1].payload), entries[1].digest)])
        await restorer.finish("c", shard, 1, 2, last=entries[1].position)
        assert (await reader.verify(1, 2, entries[1].position)).open
        await writer.drop("c", shard)
        assert await reader.head() is None
    await client.aclose()
