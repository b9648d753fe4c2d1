"""Keeps the last registry that is known to be the cluster's, whatever happens to Redis.

1. A snapshot is adopted only if it continues the known one: same cluster, higher version, and in the same incarnation
   our revision is part of its history.
2. It is persisted before it is adopted, so that after a restart nobody forgets what others may have acted on.
3. A registry that is missing, foreign, older or forked changes the health and nothing else: the last view stays.
4. Nothing that Redis answers ends the watch.
5. Each time that Redis becomes reachable, `check_server` must pass before anything is read: a server that is set to lose
   data counts as unreachable, and the message says what to set.

Does not repair anything and does not decide who is dead: it says for how long a member has been seen without a lease.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

from kintsugi.errors import KintsugiError, Unavailable
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Snapshot, View
from kintsugi.registry.store import Change, Reading, RegistryStore
from kintsugi.telemetry import LogEvent, logger

_log = logger("registry")

_POLL_MS = 1000
_BACKOFF_FIRST_S = 0.1
_BACKOFF_LAST_S = 2.0
# The most that one interval between two reads adds to a member's time without lease: while this process stood still,
# the member may have renewed and lost its lease unseen.
_LONGEST_INTERVAL_S = 3.0


class RegistryHealth(StrEnum):
    """Whether the registry in Redis is the one this process knows."""

    OK = "ok"
    # Redis does not answer, or not with a registry that can be read, or is set so that it would lose data.
    UNREACHABLE = "unreachable"
    # Redis answers and holds no cluster.
    MISSING = "missing"
    # Redis holds another cluster.
    FOREIGN = "foreign"
    # Redis holds an earlier state of the registry.
    REGRESSED = "regressed"
    # Redis holds a registry that went on from an earlier state, differently.
    FORKED = "forked"

    @property
    def is_lost(self) -> bool:
        """Whether the registry must be restored before anything may be written."""
        return self in {RegistryHealth.MISSING, RegistryHealth.REGRESSED, RegistryHealth.FORKED}


def judge(known: Snapshot | None, reading: Reading | None) -> tuple[RegistryHealth, str]:
    """Whether what was read continues what is known, and why not."""
    if reading is None:
        return RegistryHealth.MISSING, "redis holds no registry"
    read = reading.snapshot
    if known is None:
        return RegistryHealth.OK, ""
    if read.cluster_id != known.cluster_id:
        return RegistryHealth.FOREIGN, f"redis holds cluster {read.cluster_id}, this is {known.cluster_id}"
    if read.version < known.version:
        return RegistryHealth.REGRESSED, f"redis holds {_version(read)}, known is {_version(known)}"
    if read.incarnation > known.incarnation:
        return RegistryHealth.OK, ""
    digest = read.digest if read.revision == known.revision else reading.known_digest
    if digest is not None and digest != known.digest:
        return RegistryHealth.FORKED, f"redis holds {_version(read)}, whose history does not contain {_version(known)}"
    return RegistryHealth.OK, ""


class RegistryWatcher:
    """`known` is what the process knew when it last ran. `persist` is awaited with each snapshot before it is adopted.
    `clock` is a monotonic clock in seconds. `check_server` raises what is wrong with the server."""

    def __init__(
        self,
        store: RegistryStore,
        known: Snapshot | None = None,
        persist: Callable[[Snapshot], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        check_server: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.view: View | None = None if known is None else known.view()
        self.health = RegistryHealth.UNREACHABLE
        self.message = "redis was not read yet"
        self.leases: dict[str, LeaseInfo] = {}
        self._store = store
        self._persist = persist
        self._clock = clock
        self._check_server = check_server
        self._refreshing = asyncio.Lock()
        # Readings are numbered in the order in which they begin. The last one that was not cancelled:
        self._last_read = 0
        self._reads_begun = 0
        self._changed = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        # The version last seen in Redis, adopted or not: events up to it are no news.
        self._seen: tuple[int, int] = (0, 0)
        self._read_at: float | None = None
        self._without_lease_s: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Follows the registry until `stop` is set. Reads it at each change and at least every second."""
        backoff_s = _BACKOFF_FIRST_S
        news: bool | None = False
        while not stop.is_set():
            seen = self._seen
            await self.refresh()
            # An event that no read confirms would otherwise wake us without pause.
            in_vain = news and self._seen == seen
            news = None
            if self.health is not RegistryHealth.UNREACHABLE and not in_vain:
                news = await self._wait_event(stop)
            if news is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), backoff_s)
                backoff_s = min(2 * backoff_s, _BACKOFF_LAST_S)
            else:
                backoff_s = _BACKOFF_FIRST_S

    async def refresh(self) -> None:
        """Reads the registry and the leases now; those who wait for one reading share the next one. Never raises: see
        `health`."""
        asked_behind = self._reads_begun
        async with self._refreshing:
            if self._last_read > asked_behind:
                return
            self._reads_begun += 1
            this_read = self._reads_begun
            before = (self.view, self.health, self.leases)
            try:
                health, message = await self._read()
            except KintsugiError as error:
                health, message = RegistryHealth.UNREACHABLE, error.message
            except Exception as error:  # noqa: BLE001
                # Whatever was read or persisted wrongly must not end the watch; the next read may be well.
                _log.exception(LogEvent.REGISTRY_READ_FAILED)
                health, message = RegistryHealth.UNREACHABLE, f"reading the registry failed: {error}"
            if health is not self.health:
                say = _log.info if health is RegistryHealth.OK else _log.warning
                say(LogEvent.REGISTRY_HEALTH, health=health.value, message=message)
            self.health, self.message = health, message
            self._count_absence()
            self._last_read = this_read
            if before != (self.view, self.health, self.leases):
                self._notify()

    async def update(self, change: Change) -> View:
        """Changes the registry, as RegistryStore.update does, only if it is the cluster's, and adopts the result.
        Raises Unavailable with the reason REGISTRY_MISSING, REGISTRY_REGRESSED and so on otherwise."""
        known = None if self.view is None else self.view.snapshot

        def check(reading: Reading) -> None:
            health, message = judge(known, reading)
            if health is not RegistryHealth.OK:
                raise Unavailable(message, reason=f"REGISTRY_{health.name}")

        snapshot = await self._store.update(change, known, check)
        async with self._refreshing:
            if self.view is None or snapshot.version > self.view.snapshot.version:
                try:
                    await self._adopt(snapshot)
                except Exception:  # noqa: BLE001
                    # The change is made; the next refresh tries again to adopt it and reports what is wrong.
                    _log.exception(LogEvent.REGISTRY_ADOPTION_FAILED)
                self._notify()
        return snapshot.view()

    async def wait_for(self, predicate: Callable[[View | None, RegistryHealth], bool], timeout_s: float) -> bool:
        """Waits until the predicate holds; False at the timeout. Needs `run` elsewhere."""
        try:
            async with asyncio.timeout(timeout_s):
                while not predicate(self.view, self.health):
                    await self._changed.wait()
        except TimeoutError:
            return predicate(self.view, self.health)
        return True

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back after every change of view, health or leases, on the event loop. Returns the unsubscription."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def seconds_without_lease(self, member_id: str) -> float:
        """For how long a member of the registry has been seen without a lease, while the registry was continuously
        healthy: after a loss or an outage of Redis everybody gets the full time to renew."""
        return self._without_lease_s.get(member_id, 0.0)

    async def _read(self) -> tuple[RegistryHealth, str]:
        if self._check_server is not None and self.health is RegistryHealth.UNREACHABLE:
            await self._check_server()
        known = None if self.view is None else self.view.snapshot
        reading = await self._store.read_after(known)
        leases = await self._store.leases()
        self._seen = (0, 0) if reading is None else reading.snapshot.version
        health, message = judge(known, reading)
        if health is RegistryHealth.OK and reading is not None:
            if known is None or reading.snapshot.version > known.version:
                await self._adopt(reading.snapshot)
            self.leases = leases
        return health, message

    async def _adopt(self, snapshot: Snapshot) -> None:
        view = snapshot.view()
        if self._persist is not None:
            await self._persist(snapshot)
        if self.view is not None and self.view.snapshot.incarnation != snapshot.incarnation:
            self._without_lease_s.clear()
            self._read_at = None
        self.view = view

    async def _wait_event(self, stop: asyncio.Event) -> bool | None:
        """Waits for an event, a second, or the stop. Whether there was an event; None when waiting failed."""
        known = (0, 0) if self.view is None else self.view.snapshot.version
        event = asyncio.ensure_future(self._store.wait_event(max(known, self._seen), _POLL_MS))
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({event, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            event.cancel()
            stopped.cancel()
            result, _ = await asyncio.gather(event, stopped, return_exceptions=True)
        if isinstance(result, Exception):
            return None
        return result is True

    def _count_absence(self) -> None:
        now = self._clock()
        if self.health is not RegistryHealth.OK or self.view is None:
            self._without_lease_s.clear()
            self._read_at = None
            return
        passed_s = 0.0 if self._read_at is None else min(now - self._read_at, _LONGEST_INTERVAL_S)
        self._read_at = now
        self._without_lease_s = {
            member: self._without_lease_s[member] + passed_s if member in self._without_lease_s else 0.0
            for member in self.view.members
            if member not in self.leases
        }

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        for callback in tuple(self._callbacks):
            try:
                callback()
            except Exception:  # noqa: BLE001
                _log.exception(LogEvent.REGISTRY_CALLBACK_FAILED)


def _version(snapshot: Snapshot) -> str:
    return f"incarnation {snapshot.incarnation}, revision {snapshot.revision}"
