"""The artifacts of upgrades in Redis, by the SHA-256 of their bytes: how a coordinator hands them to the shard servers.

Guarantees that what is read has the digest it was asked by: what is damaged counts as absent. A cache only: shard servers keep
what the registry names and put back what Redis lost. Knows nothing of what is in them.
"""

from typing import Any

from kintsugi.errors import InvalidArgument
from kintsugi.keys import Keys
from kintsugi.projections.artifact import MAX_BYTES, digest
from kintsugi.redis_client import RedisClient, redis_errors

_KEPT_AFTER_DROP_S = 600


class ArtifactCache:
    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def put(self, data: bytes) -> str:
        """Keeps an artifact and returns its digest. Raises InvalidArgument above 32 MiB, Unavailable without Redis."""
        if not 1 <= len(data) <= MAX_BYTES:
            raise InvalidArgument("artifact", f"has {len(data)} bytes", f"must have 1 to {MAX_BYTES}")
        name = digest(data)
        with redis_errors(f"keeping artifact {name}"):
            await self._client.set(self._keys.artifact(name), data)
        return name

    async def get(self, name: str) -> bytes | None:
        """The artifact of this digest; None when Redis has none, or a damaged one. Raises Unavailable without Redis."""
        with redis_errors(f"reading artifact {name}"):
            data: Any = await self._client.get(self._keys.artifact(name))
        return data if data is not None and digest(data) == name else None

    async def drop(self, name: str) -> None:
        """Lets go of it soon, unless it is put again: another plan may name it at this moment, and must not lose it before the
        shard servers have read it."""
        with redis_errors(f"dropping artifact {name}"):
            await self._client.expire(self._keys.artifact(name), _KEPT_AFTER_DROP_S)
