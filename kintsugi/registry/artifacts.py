"""The artifacts of upgrades in Redis, by the SHA-256 of their bytes: how a coordinator hands them to the shard servers.

1. An artifact is written in chunks under a name of its upload, and gets its own when all of it has arrived and has its digest:
   nobody ever finds a part of one.
2. It is kept for 10 minutes, and for good once somebody says so because the registry names it. So what was uploaded in vain
   goes by itself.
3. It is read in chunks, which keeps neither Redis nor anybody else waiting. What is damaged counts as absent.
A cache only: shard servers keep what the registry names and put back what Redis lost. Knows nothing of what is in them.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from kintsugi.cancelling import finish
from kintsugi.errors import InvalidArgument, KintsugiError, Unavailable
from kintsugi.keys import Keys
from kintsugi.limits import MAX_ARTIFACT_BYTES, MAX_ARTIFACT_CHUNK_BYTES
from kintsugi.projections.artifact import chunks, digest, is_digest
from kintsugi.redis_client import RedisClient, Script, redis_errors

# Without anybody's word that the registry names it. A plan follows its uploads within seconds; whoever plans by hand has time.
KEPT_S = 600
# A plan that is registered with what is kept for longer than this is heard of in time.
_LASTS_S = 60
_COMPLETE = Script("kintsugi.registry", "complete_artifact.lua")


class Upload:
    """An artifact on its way into Redis."""

    def __init__(self, client: RedisClient, name: str, total_bytes: int, key: str) -> None:
        self._client = client
        self._name = name
        self._total_bytes = total_bytes
        self._key = key
        self._sha256 = hashlib.sha256()
        self._arrived = 0

    async def append(self, data: bytes) -> None:
        """Raises InvalidArgument for more bytes than were announced, Unavailable without Redis."""
        if (size := self._arrived + len(data)) > self._total_bytes:
            raise InvalidArgument("data", f"makes {size} bytes", f"must make {self._total_bytes}, as total_bytes says")
        await asyncio.to_thread(self._sha256.update, data)
        with redis_errors(f"uploading artifact {self._name}"):
            if not self._arrived:
                await self._client.set(self._key, data, ex=KEPT_S)
            elif await self._client.append(self._key, data) != size:
                raise self._lost()
        self._arrived = size

    async def complete(self, key: str) -> None:
        """Gives it its own name. Raises InvalidArgument unless all has arrived that was announced, Unavailable without Redis."""
        if self._arrived != self._total_bytes:
            raise InvalidArgument("total_bytes", f"is {self._total_bytes}", f"must be {self._arrived}: so many came")
        if (found := self._sha256.hexdigest()) != self._name:
            raise InvalidArgument("digest", f"is {self._name}", f"must be {found}, that of the bytes that came")
        with redis_errors(f"keeping artifact {self._name}"):
            if not await _COMPLETE.run(self._client, [self._key, key], [KEPT_S]):
                raise self._lost()

    def _lost(self) -> Unavailable:
        return Unavailable(f"the upload of artifact {self._name} was lost or took too long", reason="REDIS_UNAVAILABLE")


class ArtifactCache:
    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    @asynccontextmanager
    async def upload(self, name: str, total_bytes: int) -> AsyncIterator[Upload]:
        """Takes an artifact in chunks inside the block and has it at its end, for 10 minutes. An upload that fails or has
        other bytes leaves nothing behind. Raises InvalidArgument above 96 MiB, Unavailable without Redis."""
        if not 1 <= total_bytes <= MAX_ARTIFACT_BYTES:
            raise InvalidArgument("total_bytes", f"is {total_bytes}", f"must be 1 to {MAX_ARTIFACT_BYTES}")
        key = self._keys.artifact_upload(name, secrets.token_hex(8))
        upload = Upload(self._client, name, total_bytes, key)
        try:
            yield upload
            await upload.complete(self._keys.artifact(name))
        except BaseException:
            # A call that its client left first looks like one that has ended, and is cancelled only then.
            await finish(self._discard(key))
            raise

    async def _discard(self, key: str) -> None:
        with suppress(KintsugiError), redis_errors():  # it expires by itself
            await self._client.delete(key)

    async def put(self, data: bytes) -> str:
        """Uploads all of an artifact and returns its digest."""
        name = await asyncio.to_thread(digest, data)
        async with self.upload(name, len(data)) as upload:
            for chunk in chunks(data):
                await upload.append(chunk)
        return name

    async def get(self, name: str) -> bytes | None:
        """The artifact of this digest; None when Redis has none, or a damaged one. Raises Unavailable without Redis."""
        key, data = self._keys.artifact(name), bytearray()
        with redis_errors(f"reading artifact {name}"):
            total_bytes = min(await self._client.strlen(key), MAX_ARTIFACT_BYTES)
            while len(data) < total_bytes:
                last = len(data) + MAX_ARTIFACT_CHUNK_BYTES - 1
                chunk: Any = await self._client.getrange(key, len(data), last)
                if not chunk:
                    return None  # it expired meanwhile
                data += chunk
        whole = bytes(data)
        return whole if whole and await asyncio.to_thread(digest, whole) == name else None

    async def lasts(self, name: str) -> bool:
        """Whether it is there and will be when the registry names it."""
        with redis_errors(f"looking for artifact {name}"):
            left_s: int = await self._client.ttl(self._keys.artifact(name))
        return left_s == -1 or left_s >= _LASTS_S

    async def keep(self, name: str) -> None:
        """Keeps it for good, as long as somebody has it there."""
        with redis_errors(f"keeping artifact {name}"):
            await self._client.persist(self._keys.artifact(name))

    async def drop(self, name: str) -> None:
        """Keeps it for 10 minutes more: another plan may name it at this moment, and must not lose it before the shard servers
        have read it."""
        with redis_errors(f"dropping artifact {name}"):
            await self._client.expire(self._keys.artifact(name), KEPT_S)


def check_digest(name: str, field: str) -> None:
    """Raises InvalidArgument by its field for what is no digest."""
    if not is_digest(name):
        raise InvalidArgument(field, f"is {name[:80]!r}", "must be 64 hexadecimal digits in lower case")
