"""Finds the logs that are in Redis, whoever knows of them.

Looks at a bounded part of the keys at a time, since others may share the server, and goes on from there the next time;
each log that stays is found once per round through all keys, or more often. Changes nothing.
"""

from typing import Any

from redis.asyncio import RedisCluster

from kintsugi.keys import Keys
from kintsugi.redis_client import RedisClient, redis_errors


class LogListing:
    """Each look makes at most `calls_at_a_time` calls, each of which looks at about `keys_per_call` keys."""

    def __init__(
        self, client: RedisClient, keys: Keys, *, keys_per_call: int = 1000, calls_at_a_time: int = 200
    ) -> None:
        self._client = client
        self._keys = keys
        self._keys_per_call = keys_per_call
        self._calls_at_a_time = calls_at_a_time
        # Where to go on, by node of a Redis Cluster.
        self._cursors: dict[str, int] = {}

    async def more(self) -> set[tuple[str, int]]:
        """The logs in the next part of the keys, as collection uid and shard."""
        with redis_errors("listing logs"):
            if not isinstance(self._client, RedisCluster):
                return await self._scan("")
            await self._client.initialize()
            found: set[tuple[str, int]] = set()
            for node in self._client.get_primaries():
                found |= await self._scan(node.name, target_nodes=node)
            return found

    async def _scan(self, name: str, **options: Any) -> set[tuple[str, int]]:
        found: set[tuple[str, int]] = set()
        cursor = self._cursors.get(name, 0)
        for _ in range(self._calls_at_a_time):
            reply: Any = await self._client.scan(cursor, self._keys.every_head, self._keys_per_call, **options)
            cursors, names = reply
            cursor = int(cursors[name] if isinstance(cursors, dict) else cursors)
            logs = (self._keys.log_of_head(one.decode()) for one in names)
            found |= {log for log in logs if log is not None}
            if cursor == 0:
                break
        self._cursors[name] = cursor
        return found
