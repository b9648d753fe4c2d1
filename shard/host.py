"""Keeps the replicas that the registry places on this shard server open, and no others.

A replica whose collection was deleted is removed with its data. A replica that a restored registry does not know is
moved to orphaned/ instead: its data may be the only copy of something that the restoration did not reach.
"""

import asyncio

from kintsugi.cancelling import end, finish
from kintsugi.durable import remove_folder
from kintsugi.errors import NotFound
from kintsugi.internal.v1 import shard_pb2
from kintsugi.registry.records import View
from kintsugi.telemetry import LogEvent, logger
from shard.folders import Folders
from shard.replica import Replica
from shard.surroundings import Surroundings

_Key = tuple[str, int]
_log = logger("host")


class Host:
    def __init__(self, folders: Folders, around: Surroundings) -> None:
        self._folders = folders
        self._around = around
        self._replicas: dict[_Key, Replica] = {}
        self._running: dict[_Key, asyncio.Task[None]] = {}
        self._opened_under: dict[_Key, int] = {}  # the incarnation of the registry that placed it here
        self._reconciled = asyncio.Event()

    @property
    def replicas(self) -> list[Replica]:
        return [replica for _, replica in sorted(self._replicas.items())]

    def replica(self, ref: shard_pb2.ReplicaRef) -> Replica:
        found = self._replicas.get((ref.collection_uid, ref.shard))
        if found is None:
            raise NotFound(f"replica of shard {ref.shard} of collection {ref.collection_uid!r} is not hosted here")
        return found

    def artifact(self, digest: str) -> bytes:
        """An artifact that this server holds. Blocks. Raises NotFound."""
        return self._around.upgrades.held(digest)

    def documents(self) -> dict[str, int]:
        """The documents of each open replica, as "uid/shard" to number, for the lease."""
        return {
            f"{uid}/{shard}": replica.engine.documents
            for (uid, shard), replica in self._replicas.items()
            if replica.is_open
        }

    async def run(self) -> None:
        """Follows the registry until cancelled; then closes all replicas."""
        changed = asyncio.Event()
        self._around.watcher.subscribe(changed.set)
        try:
            while True:
                changed.clear()
                if self._around.watcher.view is not None:
                    await self._reconcile(self._around.watcher.view)
                    self._reconciled.set()
                await changed.wait()
        finally:
            await finish(self._stop(list(self._running)))

    async def settled(self) -> None:
        """Returns when the registry has told what to host, and every replica has served or failed once."""
        await self._reconciled.wait()
        while pending := [replica for replica in self._replicas.values() if not replica.settled.is_set()]:
            await pending[0].settled.wait()

    async def _reconcile(self, view: View) -> None:
        placed = {(shard.collection_uid, shard.shard) for shard in view.replicas_on(self._around.member)}
        incarnation = view.snapshot.incarnation
        gone = [key for key in self._replicas if key not in placed]
        await self._stop(gone)
        for key in gone:
            deleted = self._opened_under.pop(key) == incarnation and key[0] not in view.collections
            await self._discard(key, deleted=deleted)
        for key in await asyncio.to_thread(self._folders.replicas):
            if key not in placed and key not in gone:
                await self._discard(key, deleted=False)
        for key in sorted(placed):
            self._opened_under[key] = incarnation
            collection, upgrade = view.collections[key[0]], view.upgrades.get(key[0])
            if key in self._replicas:
                self._replicas[key].follow(collection, upgrade)
            else:
                replica = Replica(collection, upgrade, key[1], self._folders, self._around)
                self._replicas[key] = replica
                self._running[key] = asyncio.create_task(replica.run())
        await self._around.upgrades.forget_all_but(view.upgrades.values())

    async def _discard(self, key: _Key, *, deleted: bool) -> None:
        try:
            await asyncio.to_thread(self._discard_folder, key, deleted=deleted)
        except OSError as error:  # it stays where it is, looked at again when the registry changes
            _log.error(LogEvent.REPLICA_FAILED, collection_uid=key[0], shard=key[1], error=str(error))

    def _discard_folder(self, key: _Key, *, deleted: bool) -> None:
        folder = self._folders.replica(*key).path
        if not folder.exists():
            return
        if deleted:
            _log.info(LogEvent.REPLICA_REMOVED, collection_uid=key[0], shard=key[1])
            remove_folder(folder)
        else:
            target = self._folders.set_aside(folder, "orphaned")
            _log.error(LogEvent.REPLICA_ORPHANED, collection_uid=key[0], shard=key[1], path=str(target))

    async def _stop(self, keys: list[_Key]) -> None:
        tasks = [self._running.pop(key) for key in keys]
        await end(tasks)
        for key in keys:
            del self._replicas[key]
