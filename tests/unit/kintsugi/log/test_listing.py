"""Finding the logs that are in Redis."""

import asyncio

from kintsugi.keys import Keys
from kintsugi.log.append import LogWriter
from kintsugi.log.listing import LogListing
from kintsugi.redis_client import connect


async def create(client, keys, *logs):
    for uid, shard in logs:
        await LogWriter(client, keys, max_log_bytes=10**7).create(uid, shard, 1, 1, ["a"])


async def test_every_log_of_the_namespace_is_found_and_nothing_else(redis):
    """Neither other namespaces, however alike their names, nor other keys are taken for logs."""
    keys = Keys("na[m]e*")
    await create(redis, keys, ("c1", 0), ("c1", 11), ("c2", 0))
    for other in ("na[m]e*:x", "name", "na[m]e*2", "namexe"):
        await create(redis, Keys(other), ("c3", 0))
    for name in ("{na[m]e*:c4/x}:head", "{na[m]e*:c4}:head", "x{na[m]e*:c4/0}:head"):
        await redis.set(name, "1")
    assert await LogListing(redis, keys).more() == {("c1", 0), ("c1", 11), ("c2", 0)}


async def test_a_large_server_is_looked_through_in_parts(redis, keys):
    """Each call does a bounded work, goes on where the one before ended, and begins again at the end."""
    logs = {(f"c{number}", 0) for number in range(40)}
    await create(redis, keys, *logs)
    await redis.mset({f"other-{number}": "1" for number in range(200)})
    parts = LogListing(redis, keys, keys_per_call=10, calls_at_a_time=2)
    first = await parts.more()
    assert first < logs
    found = set(first)
    async with asyncio.timeout(20):
        while found != logs:
            found |= await parts.more()
        again = set()
        while again != logs:
            again |= await parts.more()


async def test_a_redis_cluster_is_listed_node_by_node(new_valkey, keys):
    """The cluster's client tells cursors by node."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    server = new_valkey("cluster", durable=False, options=options)
    single = connect(server.url)
    await single.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    async with asyncio.timeout(20):
        while b"cluster_state:ok" not in await single.execute_command("CLUSTER", "INFO"):
            pass
    await single.aclose()
    client = connect(f"cluster://127.0.0.1:{server.port}")
    await create(client, keys, ("c1", 0), ("c2", 3))
    parts = LogListing(client, keys)
    assert await parts.more() == await parts.more() == {("c1", 0), ("c2", 3)}
    await client.aclose()
