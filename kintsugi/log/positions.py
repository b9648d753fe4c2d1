"""How far each replica holds a log durably, which is what keeps its entries from being trimmed.

Guarantees that a log keeps every entry after the lowest position, and the entry at it, so that each replica can compare
its own last entry with the log's. A joining replica's hold is such a position. Without any position nothing is trimmed.
Knows nothing of what replicas do with entries.
"""

from typing import Any

from kintsugi.keys import Keys
from kintsugi.log.scripts import log_script, shard_keys
from kintsugi.redis_client import RedisClient, redis_errors

_REPORT = log_script("report.lua")


class LogPositions:
    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def report(self, uid: str, shard: int, member: str, seq: int) -> bool:
        """Sets a member's position, and returns whether the log still holds every entry after it."""
        with redis_errors(f"reporting a position in log {uid}/{shard}"):
            held = await _REPORT.run(self._client, shard_keys(self._keys, uid, shard), [member, seq])
        return bool(held)

    async def drop(self, uid: str, shard: int, member: str) -> None:
        """Forgets a member: trimming no longer waits for it."""
        with redis_errors(f"dropping a position in log {uid}/{shard}"):
            await self._client.execute_command("HDEL", self._keys.shard(uid, shard).positions, member)

    async def all(self, uid: str, shard: int) -> dict[str, int]:
        with redis_errors(f"reading the positions of log {uid}/{shard}"):
            found: Any = await self._client.hgetall(self._keys.shard(uid, shard).positions)
        return {member.decode(): int(seq) for member, seq in found.items()}
