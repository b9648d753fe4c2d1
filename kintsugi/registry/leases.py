"""Who is alive, and who may restore the registry: leases in Redis that end by Redis' own clock.

Guarantees that members' clocks do not matter and that at most one owner holds the recovery lease at a time. Leases are
not part of the registry: they carry no revision and are lost with Redis. Knows nothing of what follows from a lost
lease.
"""

from secrets import token_hex

import msgspec

from kintsugi.keys import Keys
from kintsugi.redis_client import RedisClient, Script, redis_errors

_RENEW = Script("kintsugi.registry", "renew_lease.lua")
_ALIVE = Script("kintsugi.registry", "leases.lua")
_RENEW_RECOVERY = Script("kintsugi.registry", "renew_recovery.lua")
_RELEASE_RECOVERY = Script("kintsugi.registry", "release_recovery.lua")


class LeaseInfo(msgspec.Struct, frozen=True):
    """What a living member tells about itself: the registry revision that it acts on and, by "collection uid/shard",
    the number of documents in its replicas."""

    revision: int = 0
    documents: dict[str, int] = {}


# Made once: msgspec crashes when two threads are the first to decode the same type.
_READ_INFO = msgspec.json.Decoder(LeaseInfo)


class Leases:
    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def renew(self, member_id: str, ttl_ms: int, info: LeaseInfo) -> None:
        with redis_errors("renewing a lease"):
            await _RENEW.run(self._client, [self._keys.leases], [member_id, ttl_ms, msgspec.json.encode(info)])

    async def release(self, member_id: str) -> None:
        with redis_errors("releasing a lease"):
            await self._client.execute_command("HDEL", self._keys.leases, member_id)

    async def alive(self) -> dict[str, LeaseInfo]:
        """The members whose lease has not ended."""
        with redis_errors("reading leases"):
            reply = await _ALIVE.run(self._client, [self._keys.leases], [])
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return {member.decode(): _READ_INFO.decode(info) for member, info in pairs}

    async def acquire_recovery(self, owner: str, ttl_ms: int) -> str | None:
        """The token of the recovery lease, or None while somebody holds it."""
        token = f"{owner} {token_hex(8)}"
        with redis_errors("acquiring the recovery lease"):
            taken = await self._client.execute_command("SET", self._keys.recovery, token, "NX", "PX", ttl_ms)
        return token if taken else None

    async def renew_recovery(self, token: str, ttl_ms: int) -> bool:
        with redis_errors("renewing the recovery lease"):
            return bool(await _RENEW_RECOVERY.run(self._client, [self._keys.recovery], [token, ttl_ms]))

    async def release_recovery(self, token: str) -> None:
        with redis_errors("releasing the recovery lease"):
            await _RELEASE_RECOVERY.run(self._client, [self._keys.recovery], [token])
