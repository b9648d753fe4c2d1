"""Looks at a Redis from outside: what its nodes say of themselves, how fast, and by which clock."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from kintsugi.redis_client import RedisClient, redis_errors

_PINGS = 7


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """One node. `info` is all of INFO; `appendfsync` is '' when CONFIG is forbidden; `clock_ahead_s` is how far its
    clock is ahead of this machine's; `latency_s` the median of some PINGs."""

    name: str
    info: Mapping[str, Any]
    appendfsync: str
    clock_ahead_s: float
    latency_s: float


async def look(client: RedisClient) -> list[RedisFacts]:
    """The facts of the server, or of each primary of a Redis Cluster. Raises Unavailable."""
    with redis_errors("looking at redis"):
        if not isinstance(client, RedisCluster):
            return [await _look(client, "redis", {})]
        await client.initialize()
        return [await _look(client, f"redis {node.name}", {"target_nodes": node}) for node in client.get_primaries()]


async def _look(client: RedisClient, name: str, target: dict[str, Any]) -> RedisFacts:
    info = await client.info("everything", **target)
    try:
        appendfsync = (await client.config_get("appendfsync", **target)).get("appendfsync", "")
    except ResponseError:  # managed servers forbid CONFIG
        appendfsync = ""
    latencies = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        await client.execute_command("PING", **target)
        latencies.append(time.perf_counter() - began)
    before = time.time()
    seconds, microseconds = await client.execute_command("TIME", **target)
    here = (before + time.time()) / 2
    there = int(seconds) + int(microseconds) / 1e6
    return RedisFacts(name, info, _text(appendfsync), there - here, sorted(latencies)[_PINGS // 2])


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
