"""Takes the artifacts of plans from clients, chunk by chunk, into Redis: at no time a whole one in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from coordinator.deadline import Deadline
from kintsugi import limits
from kintsugi.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from kintsugi.registry.artifacts import check_digest
from kintsugi.v1 import upgrades_pb2

_RETRY_DELAY_S = 1.0

Requests = AsyncIterator[upgrades_pb2.PutArtifactRequest]


class Upload(Protocol):
    """kintsugi.registry.artifacts.Upload."""

    async def append(self, data: bytes) -> None: ...


class Cache(Protocol):
    """The part of ArtifactCache that is needed."""

    def upload(self, name: str, total_bytes: int) -> AbstractAsyncContextManager[Upload]: ...


class ArtifactUploads:
    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._running = 0

    async def put(self, requests: Requests, deadline: Deadline) -> str:
        """Returns the digest of what was uploaded. Nothing stays of an upload that fails."""
        if self._running >= limits.MAX_ARTIFACT_UPLOADS:
            raise ResourceExhausted(
                f"{self._running} uploads of artifacts are under way here, there may be {limits.MAX_ARTIFACT_UPLOADS}",
                reason="TOO_MANY_UPLOADS",
                retry_delay_s=_RETRY_DELAY_S,
            )
        self._running += 1
        try:
            async with asyncio.timeout(deadline.remaining_s):
                return await self._put(requests)
        except TimeoutError as error:
            raise DeadlineExceeded("the artifact did not arrive in time") from error
        finally:
            self._running -= 1

    async def _put(self, requests: Requests) -> str:
        first = await anext(requests, None)
        if first is None:
            raise InvalidArgument("digest", "is ''", "must be given in the first message")
        check_digest(first.digest, "digest")
        async with self._cache.upload(first.digest, first.total_bytes) as upload:
            await upload.append(_checked(first.data))
            async for request in requests:
                if request.digest or request.total_bytes:
                    raise InvalidArgument("digest", f"is {request.digest!r}", "must be given in the first message only")
                await upload.append(_checked(request.data))
        return first.digest


def _checked(data: bytes) -> bytes:
    if not 1 <= len(data) <= limits.MAX_ARTIFACT_CHUNK_BYTES:
        raise InvalidArgument("data", f"has {len(data)} bytes", f"must have 1 to {limits.MAX_ARTIFACT_CHUNK_BYTES}")
    return data
