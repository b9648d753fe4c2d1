"""Tells the registry what index versions the replicas of this server have, and how each of them lives.

For people and coordinators to see; nothing in the shard server waits for it. What a lost registry did not hear is told
again, since the newest state of each version is kept until it is written.
"""

import asyncio
import functools
from collections.abc import Sequence

from kintsugi.errors import KintsugiError
from kintsugi.registry.records import Collection, IndexVersion, IndexVersionState, Record, View, field_of
from kintsugi.registry.store import Delete
from kintsugi.registry.watch import RegistryWatcher
from kintsugi.telemetry import LogEvent, logger
from shard.indexer import OnVersion

RETRY_S = 1.0
# Retired versions stay listed until so many newer ones are there.
KEEP_RETIRED = 2

_log = logger("index-reports")


class IndexReports:
    def __init__(self, watcher: RegistryWatcher, member: str) -> None:
        self._watcher = watcher
        self._member = member
        self._pending: dict[str, IndexVersion] = {}
        self._arrived = asyncio.Event()

    def reporter(self, collection: Collection, shard: int, loop: asyncio.AbstractEventLoop) -> OnVersion:
        """The callback of one replica's indexer; may be called from any thread."""

        def report(number: int, encoding: str, state: IndexVersionState) -> None:
            version = IndexVersion(
                collection.uid, shard, self._member, number, collection.serving_model, encoding, state
            )
            loop.call_soon_threadsafe(self._take, version)

        return report

    def _take(self, version: IndexVersion) -> None:
        self._pending[field_of(version)] = version
        self._arrived.set()

    async def run(self) -> None:
        """Writes what arrives, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch = dict(self._pending)
            try:
                await self._watcher.update(functools.partial(self._changes, list(batch.values())))
            except KintsugiError as error:
                _log.debug(LogEvent.INDEX_REPORT_POSTPONED, error=str(error))
                await asyncio.sleep(RETRY_S)
                self._arrived.set()
                continue
            self._pending = {field: version for field, version in self._pending.items() if batch.get(field) != version}

    def _changes(self, versions: Sequence[IndexVersion], view: View) -> list[Record | Delete]:
        changes: list[Record | Delete] = []
        for version in versions:
            if (version.collection_uid, version.shard) not in view.shards:
                continue  # the collection was deleted meanwhile
            changes.append(version)
            listed = view.index_versions.get((version.collection_uid, version.shard, self._member), [])
            changes += [
                Delete(field_of(old))
                for old in listed
                if old.version != version.version
                and (old.version <= version.version - KEEP_RETIRED or old.version > version.version)
                and old.state is IndexVersionState.RETIRED
            ]
        return changes
