"""How far each replica holds a log durably, which is what keeps its entries from being trimmed.

Guarantees that a log keeps every entry after the lowest position, and the entry at it, so that each replica can compare
its own last entry with the log's. A joining replica's hold is such a position. Without any position nothing is trimmed.
Knows nothing of what replicas do with entries.
"""

from dataclasses import dataclass
from typing import Any

from kintsugi.keys import Keys
from kintsugi.log.scripts import log_script, shard_keys
from kintsugi.redis_client import RedisClient, redis_errors

_REPORT = log_script("report.lua")
_DROP = log_script("drop_position.lua")


@dataclass(frozen=True, slots=True)
class Reported:
    """What a log told when it took a position: whether it still holds every entry after it, how far it goes, and the
    bytes that it keeps."""

    held: bool
    head_seq: int
    kept_bytes: int


class LogPositions:
    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        # What the logs said last, by collection uid and shard.
        self.last_reported: dict[tuple[str, int], Reported] = {}

    async def report(self, uid: str, shard: int, member: str, seq: int) -> Reported:
        """Sets a member's position, unless it comes too late: the log no longer holds every entry after it."""
        with redis_errors(f"reporting a position in log {uid}/{shard}"):
            held, head_seq, kept_bytes = await _REPORT.run(
                self._client, shard_keys(self._keys, uid, shard), [member, seq]
            )
        reported = self.last_reported[uid, shard] = Reported(bool(held), head_seq, kept_bytes)
        return reported

    async def drop(self, uid: str, shard: int, member: str, at: int | None = None) -> bool:
        """Forgets a member: trimming no longer waits for it. Not if it is no longer `at` that position, when given:
        who moves on may have become somebody to wait for. Returns whether it was forgotten."""
        expected = "" if at is None else str(at)
        with redis_errors(f"dropping a position in log {uid}/{shard}"):
            dropped = await _DROP.run(self._client, shard_keys(self._keys, uid, shard), [member, expected])
        return bool(dropped)

    async def all(self, uid: str, shard: int) -> dict[str, int]:
        with redis_errors(f"reading the positions of log {uid}/{shard}"):
            found: Any = await self._client.hgetall(self._keys.shard(uid, shard).positions)
        return {member.decode(): int(seq) for member, seq in found.items()}
