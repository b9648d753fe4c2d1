"""Tells the registry what index versions the replicas of this server have, and how each of them lives.

The versions of a replica begin with its opening, live by the table of kintsugi/registry/index_versions.py, and the
registry mirrors them: one write brings it up to date, whatever it missed or still says of an earlier opening. For people
and coordinators to see; nothing in the shard server waits for it.
"""

import asyncio
import functools
from collections.abc import Collection as AnyOf

from kintsugi.errors import KintsugiError
from kintsugi.registry.index_versions import ENTRIES, IndexVersionEvent, moved, swap
from kintsugi.registry.records import Collection, IndexVersion, IndexVersionState, Record, View, field_of
from kintsugi.registry.store import Delete
from kintsugi.registry.watch import RegistryWatcher
from kintsugi.telemetry import LogEvent, logger
from shard.indexer import OnVersion

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

    def reporter(self, collection: Collection, shard: int, loop: asyncio.AbstractEventLoop) -> OnVersion:
        """The callback of the indexer of a replica that is being opened; may be called from any thread."""
        key = (collection.uid, shard)
        versions = self._versions[key] = {}

        def take(number: int, encoding: str, event: IndexVersionEvent) -> None:
            if self._versions.get(key) is versions:  # else it was opened anew, and this comes from the one before
                if event in ENTRIES:
                    names = (collection.uid, shard, self._member, number, collection.serving_model, encoding)
                    versions[number] = IndexVersion(*names, ENTRIES[event])
                else:
                    _advance(versions, number, event)
                self._untold.add(key)
                self._arrived.set()

        def report(number: int, encoding: str, event: IndexVersionEvent) -> None:
            loop.call_soon_threadsafe(take, number, encoding, event)

        return report

    async def run(self) -> None:
        """Writes what arrives, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            untold, self._untold = self._untold, set()
            try:
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


def _advance(versions: dict[int, IndexVersion], number: int, event: IndexVersionEvent) -> None:
    if event is IndexVersionEvent.SWAPPED_IN:
        versions.update({changed.version: changed for changed in swap(versions.values(), number)})
    else:
        versions[number] = moved(versions[number], event)
    for old in list(versions.values()):
        if old.state is IndexVersionState.RETIRED and old.version <= max(versions) - KEEP_RETIRED:
            del versions[old.version]
