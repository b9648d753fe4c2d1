"""Damage to what Redis holds: everything lost, an older state restored, entries of a log lost and replaced.

The only part of the harness that knows the log's keys.
"""

import asyncio
from collections.abc import Sequence

import redis

from harness.oracle import attributes_of, text_of, vector_of
from kintsugi.ids import DocId
from kintsugi.keys import Keys
from kintsugi.log import records
from kintsugi.log.append import AppendRequest, LogTarget, LogWriter
from kintsugi.log.payload import Payload
from kintsugi.position import START
from kintsugi.redis_client import connect

_KEYS = Keys()
# A serial that no oracle gave: a document with it comes from a fork.
FORGED = 999_999_999


def flush(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()


async def flush_after(url: str, delay_s: float) -> None:
    """FLUSHALL at a moment of somebody else's work: the delay is the race, nothing is waited for."""
    await asyncio.sleep(delay_s)
    flush(url)


def drop_connections(url: str) -> None:
    """Breaks the connections of all clients, as a failover does."""
    with redis.Redis.from_url(url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def lose_last_entries(url: str, uid: str, shard: int, count: int) -> None:
    """Takes the last entries from a log and sets its head back, as if they had never been appended."""
    keys = _KEYS.shard(uid, shard)
    with redis.Redis.from_url(url) as client:
        entries = client.xrange(keys.log)
        assert len(entries) > count, "the log is too short to lose so many entries"
        kept, lost = entries[:-count], entries[-count:]
        last_id, last = kept[-1]
        # A stream refuses ids that it has seen, so that it is made anew.
        client.delete(keys.log)
        for entry_id, fields in kept:
            client.xadd(keys.log, fields, id=entry_id)
        seq = last_id.partition(b"-")[2]
        client.hset(keys.head, mapping={"seq": seq, "digest": last[b"d"], "bytes": lost[0][1][b"b"]})
        client.delete(*client.keys(f"{keys.tag}:request:*") or ["none"])


async def append_forged(url: str, uid: str, shard: int, ids: Sequence[DocId], *, packed: bool = False) -> None:
    """Appends entries that no replica's history contains, as somebody who did not ask the replicas could: one per record,
    or, `packed`, few."""
    keys = _KEYS.shard(uid, shard)
    with redis.Redis.from_url(url) as client:
        incarnation, epoch = (int(value) for value in client.hmget(keys.head, "incarnation", "epoch"))
    client = connect(url)
    try:
        writer = LogWriter(client, _KEYS, max_log_bytes=2**30)
        bodies = [
            records.put(
                doc_id,
                {1: vector_of(doc_id, FORGED).tobytes()},
                attributes=str(attributes_of(FORGED)).replace("'", '"').encode(),
                text=text_of(FORGED),
            )
            for doc_id in ids
        ]
        found = [records.stamp(body, 1) for body in bodies]
        payloads = records.pack(found) if packed else [Payload(record) for record in found]
        target = LogTarget(uid, shard, incarnation, epoch, START)
        (result,) = await writer.append(target, [AppendRequest("forged", payloads)], 5.0)
        assert not isinstance(result, Exception), result
    finally:
        await client.aclose()
