"""Removes logs from Redis that no collection has: of a creation that died before the registry named it, or of a deletion
that could not finish.

    list logs -> read the registry behind it -> unknown for long enough? -> drop

1. A log is dropped only after it was unknown at every look for a quarter of an hour in which the registry was well. A
   creation in progress is over long before; should one have stood still for so long, its collection comes up all the same,
   since its replicas have a missing log rebuilt.
2. A registry that went back knows too little: as long as anybody acts on a newer one, nothing is dropped.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from coordinator.status import ReadHead
from kintsugi.errors import KintsugiError
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import View
from kintsugi.registry.watch import RegistryHealth
from kintsugi.telemetry import LogEvent, logger

LOOK_EVERY_S = 300.0
UNKNOWN_FOR_S = 900.0

_log = logger("leftovers")


class Registry(Protocol):
    """The part of RegistryWatcher that is needed here."""

    @property
    def view(self) -> View | None: ...
    @property
    def health(self) -> RegistryHealth: ...
    @property
    def leases(self) -> dict[str, LeaseInfo]: ...
    async def refresh(self) -> None: ...
    def subscribe(self, callback: Callable[[], None]) -> object: ...


class Listing(Protocol):
    """LogListing."""

    async def more(self) -> set[tuple[str, int]]: ...


class Leftovers:
    def __init__(
        self,
        registry: Registry,
        listing: Listing,
        head: ReadHead,
        drop: Callable[[str, int], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._listing = listing
        self._head = head
        self._drop = drop
        self._clock = clock
        self._unknown_since: dict[tuple[str, int], float] = {}
        registry.subscribe(self._on_registry_change)

    async def run(self) -> None:
        """Looks every few minutes until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            with suppress(KintsugiError):  # looked at again next time
                await self.look()

    async def look(self) -> None:
        if self._current() is None:
            return
        found = await self._listing.more()
        await self._registry.refresh()
        view = self._current()
        if view is None:
            return
        self._unknown_since = {log: at for log, at in self._unknown_since.items() if log not in view.shards}
        now = self._clock()
        for log in sorted(found - view.shards.keys()):
            if now - self._unknown_since.setdefault(log, now) >= UNKNOWN_FOR_S:
                await self._remove(log, view)

    async def _remove(self, log: tuple[str, int], view: View) -> None:
        head = await self._head(*log)
        if head is not None and head.incarnation > view.snapshot.incarnation:
            return  # of a registry to come
        await self._drop(*log)
        del self._unknown_since[log]
        _log.warning(LogEvent.LEFTOVER_LOG_REMOVED, collection_uid=log[0], shard=log[1])

    def _current(self) -> View | None:
        """The registry, if it is well and nobody acts on a newer one."""
        view = self._registry.view
        if view is None or self._registry.health is not RegistryHealth.OK:
            return None
        newest = max((lease.revision for lease in self._registry.leases.values()), default=0)
        return view if newest <= view.snapshot.revision else None

    def _on_registry_change(self) -> None:
        if self._registry.health is not RegistryHealth.OK:
            self._unknown_since.clear()
