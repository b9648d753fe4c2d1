"""Tells the registry what index versions the replicas of this server have, and how each of them lives.

The versions of a replica begin with its opening, live by the table of kintsugi/registry/index_versions.py, and the
registry mirrors them: one write brings it up to date, whatever it missed or still says of an earlier opening. For people
and coordinators to see, and for the replicas of a shard to take turns in building: a claim is a version that the registry
says is BUILDING before its build begins (kintsugi/registry/rollout.py). Nothing else in the shard server waits for it.
"""

import asyncio
import functools
from collections.abc import Collection as AnyOf

from kintsugi.errors import KintsugiError
from kintsugi.registry.index_versions import ENTRIES, IndexVersionEvent, moved, swap
from kintsugi.registry.records import Collection, IndexVersion, IndexVersionState, Record, View, field_of
from kintsugi.registry.rollout import is_alone, why_wait
from kintsugi.registry.store import Delete
from kintsugi.registry.watch import RegistryWatcher
from kintsugi.telemetry import LogEvent, logger
from shard.rebuilder import OnVersion

RETRY_S = 1.0
# Retired versions stay listed until so many newer ones are there.
KEEP_RETIRED = 2

_Key = tuple[str, int]
_log = logger("index-reports")


class IndexReports:
    def __init__(self, watcher: RegistryWatcher, member: str) -> None:
        self._watcher = watcher
        self._member = member
        # By collection uid and shard, then by number: the index versions since the replica was opened.
        self._versions: dict[_Key, dict[int, IndexVersion]] = {}
        self._untold: set[_Key] = set()
        self._arrived = asyncio.Event()
        # A claim and the telling of what arrived must not overtake each other.
        self._writing = asyncio.Lock()

    def reporter(self, collection: Collection, shard: int, loop: asyncio.AbstractEventLoop) -> "ReplicaReports":
        """The reports of a replica that is being opened."""
        key = (collection.uid, shard)
        versions = self._versions[key] = {}
        self._tell(key)  # whatever the opening before was building, it no longer is
        return ReplicaReports(self, key, versions, loop)

    def take(self, key: _Key, versions: dict[int, IndexVersion], named: IndexVersion, event: IndexVersionEvent) -> None:
        """Takes what became of a version of this opening of a replica."""
        if self._versions.get(key) is not versions:
            return  # it was opened anew, and this comes from the one before
        if event in ENTRIES:
            versions[named.version] = named
        else:
            _advance(versions, named.version, event)
        self._tell(key)

    def forget(self, key: _Key, versions: dict[int, IndexVersion], model: str) -> None:
        """Takes that the index of a model is closed."""
        for number, version in list(versions.items()):
            if version.model == model:
                del versions[number]
        if self._versions.get(key) is versions:
            self._tell(key)

    @property
    def member(self) -> str:
        return self._member

    async def claim(self, wanted: IndexVersion) -> str:
        """Says in the registry that a replica of this server builds, if it may; else returns why not yet. Raises
        Unavailable when the registry cannot be asked. What nobody else has to know is claimed without it: a replica that
        is alone builds also while Redis is down."""
        key, view = (wanted.collection_uid, wanted.shard), self._watcher.view
        versions = self._versions.get(key)
        if versions is None or view is None:
            return "the replica is not open"
        if why := self._busy_with(key, view):
            return why
        if is_alone(view, self._member, *key):
            versions[wanted.version] = wanted
            self._tell(key)
            return ""
        async with self._writing:
            why = await self._claim_in_registry(wanted)
            if not why and self._versions.get(key) is versions:
                versions[wanted.version] = wanted
        return why

    def give_back(self, collection_uid: str, shard: int, version: int) -> None:
        """Forgets a claim whose build never began, also one of which it is not known whether the registry has it."""
        key = (collection_uid, shard)
        self._versions.get(key, {}).pop(version, None)
        self._tell(key)

    async def _claim_in_registry(self, wanted: IndexVersion) -> str:
        why = ""

        def change(view: View) -> list[IndexVersion]:
            nonlocal why
            why = why_wait(view, self._watcher.leases, self._member, wanted.collection_uid, wanted.shard)
            return [] if why else [wanted]

        await self._watcher.update(change)
        return why

    def _busy_with(self, key: _Key, view: View) -> str:
        """The build that this server is busy with, beside that of one replica: one at a time bounds memory and work."""
        for other, versions in self._versions.items():
            shard = view.shards.get(other)
            if other == key or shard is None or self._member not in shard.replicas:
                continue
            for version in versions.values():
                if version.state.is_in_the_making:
                    name = view.collections[version.collection_uid].name
                    return f"version {version.version} of {name}/{version.shard} on this server is {version.state}"
        return ""

    def _tell(self, key: _Key) -> None:
        self._untold.add(key)
        self._arrived.set()

    async def run(self) -> None:
        """Writes what arrives, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            untold, self._untold = self._untold, set()
            try:
                async with self._writing:
                    view = await self._watcher.update(functools.partial(self._changes, untold))
            except KintsugiError as error:
                _log.debug(LogEvent.INDEX_REPORT_POSTPONED, error=str(error))
                await asyncio.sleep(RETRY_S)
                self._untold |= untold
                self._arrived.set()
                continue
            for key in untold - view.shards.keys():
                self._versions.pop(key, None)

    def _changes(self, keys: AnyOf[_Key], view: View) -> list[Record | Delete]:
        """What makes the registry say of these replicas what is so."""
        changes: list[Record | Delete] = []
        for key in keys:
            if key not in view.shards:
                continue  # the collection was deleted meanwhile
            versions = self._versions.get(key, {})
            changes += versions.values()
            listed = view.index_versions.get((*key, self._member), [])
            changes += [Delete(field_of(old)) for old in listed if old.version not in versions]
        return changes


class ReplicaReports:
    """What one opening of a replica tells. May be called from any thread."""

    def __init__(
        self, reports: IndexReports, key: _Key, versions: dict[int, IndexVersion], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._reports = reports
        self._key = key
        self._versions = versions
        self._loop = loop

    def of(self, model: str) -> OnVersion:
        """The callback of the indexer of a model."""

        def report(number: int, encoding: str, event: IndexVersionEvent) -> None:
            entry = ENTRIES.get(event, IndexVersionState.BUILDING)
            named = IndexVersion(*self._key, self._reports.member, number, model, encoding, entry)
            self._loop.call_soon_threadsafe(self._reports.take, self._key, self._versions, named, event)

        return report

    def closed(self, model: str) -> None:
        """Tells that the index of a model is closed while the replica stays open."""
        self._loop.call_soon_threadsafe(self._reports.forget, self._key, self._versions, model)


def _advance(versions: dict[int, IndexVersion], number: int, event: IndexVersionEvent) -> None:
    if event is IndexVersionEvent.SWAPPED_IN:
        versions.update({changed.version: changed for changed in swap(versions.values(), number)})
    else:
        versions[number] = moved(versions[number], event)
    for old in list(versions.values()):
        if old.state is IndexVersionState.RETIRED and old.version <= max(versions) - KEEP_RETIRED:
            del versions[old.version]
