"""The artifacts that this server holds: projections and anchors of upgrades, by the SHA-256 of their bytes.

    get: own folder -> Redis -> peers; checked, and kept on the disk before it counts

Guarantees that what is returned has the digest that was asked for. What Redis lost is put back by whoever reads it here. A file
is removed when no upgrade names it any more.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

from kintsugi.durable import write_file
from kintsugi.errors import KintsugiError, NotFound, Unavailable
from kintsugi.projections import artifact
from kintsugi.telemetry import LogEvent, logger

_REDIS = "redis"
_log = logger("artifacts")


class Cache(Protocol):
    """The part of ArtifactCache that is needed."""

    async def get(self, digest: str) -> bytes | None: ...
    async def put(self, data: bytes) -> str: ...
    async def lasts(self, digest: str) -> bool: ...
    async def keep(self, digest: str) -> None: ...


AskPeer = Callable[[str, str], Awaitable[bytes]]


class Artifacts:
    """`peers` lists the other shard servers, `ask(member, digest)` reads an artifact of one; it raises NotFound or Unavailable."""

    def __init__(self, folder: Path, cache: Cache, peers: Callable[[], Iterable[str]], ask: AskPeer) -> None:
        self._folder = folder
        self._cache = cache
        self._peers = peers
        self._ask = ask
        # Replicas of one collection fetch the same artifacts at the same time.
        self._changing = threading.Lock()

    def held(self, digest: str) -> bytes:
        """An artifact that this server holds. Blocks. Raises NotFound for another one, and for what is damaged."""
        missing = NotFound(f"artifact {digest!r} is not held here")
        if not artifact.is_digest(digest):
            raise missing
        try:
            data = (self._folder / digest).read_bytes()
        except FileNotFoundError as error:
            raise missing from error
        if artifact.digest(data) != digest:
            raise NotFound(f"artifact {digest} is damaged here")
        return data

    async def get(self, digest: str) -> bytes:
        """Raises Unavailable when nobody who can be reached has it."""
        try:
            data = await asyncio.to_thread(self.held, digest)
        except NotFound:
            data = await self._fetched(digest)
            await asyncio.to_thread(self._keep, digest, data)
        else:
            await self._put_back(digest, data)
        return data

    def forget_all_but(self, digests: Collection[str]) -> None:
        """Removes what no upgrade names. Blocks."""
        with self._changing:
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                if path.name not in digests:
                    path.unlink(missing_ok=True)

    def _keep(self, digest: str, data: bytes) -> None:
        with self._changing:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_file(self._folder / digest, data)

    async def _fetched(self, digest: str) -> bytes:
        problems = []
        for name, ask in self._sources(digest):
            try:
                data = await ask()
            except KintsugiError as error:
                problems.append(f"{name}: {error.message}")
                continue
            if data is not None and await asyncio.to_thread(artifact.digest, data) == digest:
                if name != _REDIS:
                    await self._put_back(digest, data, is_lost=True)
                return data
            problems.append(f"{name} has {'another one under its digest' if data else 'none'}")
        raise Unavailable(f"artifact {digest} cannot be read: {'; '.join(problems)}", reason="ARTIFACT_MISSING")

    def _sources(self, digest: str) -> Iterable[tuple[str, Callable[[], Awaitable[bytes | None]]]]:
        yield _REDIS, partial(self._cache.get, digest)
        for member in self._peers():
            yield member, partial(self._ask, member, digest)

    async def _put_back(self, digest: str, data: bytes, *, is_lost: bool = False) -> None:
        """Into Redis, for good: an upgrade names it."""
        try:
            if is_lost or not await self._cache.lasts(digest):
                await self._cache.put(data)
                await self._cache.keep(digest)
        except KintsugiError as error:  # Redis may be away; whoever reads it next tries again
            _log.debug(LogEvent.ARTIFACT_NOT_CACHED, digest=digest, error=str(error))
