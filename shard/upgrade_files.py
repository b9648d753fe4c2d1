"""Loads upgrades with their artifacts, once for all replicas of this server."""

import asyncio
from collections.abc import Collection as AnyOf

from kintsugi.errors import Unavailable
from kintsugi.projections.artifact import ArtifactInvalid
from kintsugi.registry.records import Collection, Upgrade, UpgradeState
from shard.artifacts import Artifacts
from shard.upgrading import LoadedUpgrade, loaded

# Before, nothing of it is searched; after, nothing is missing.
_NEEDS_NOTHING = frozenset({UpgradeState.PLANNED, UpgradeState.FINISHED})


class UpgradeFiles:
    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        # By the collection's uid: the last one.
        self._loaded: dict[str, LoadedUpgrade] = {}

    def held(self, digest: str) -> bytes:
        """An artifact that this server holds. Blocks. Raises NotFound."""
        return self._artifacts.held(digest)

    async def forget_all_but(self, upgrades: AnyOf[Upgrade]) -> None:
        """Lets go of what is loaded for collections without an upgrade, and removes the artifacts that no upgrade names."""
        uids = {upgrade.collection_uid for upgrade in upgrades}
        self._loaded = {uid: one for uid, one in self._loaded.items() if uid in uids}
        digests = {digest for upgrade in upgrades for digest in upgrade.artifacts}
        await asyncio.to_thread(self._artifacts.forget_all_but, digests)

    async def loaded(self, collection: Collection, record: Upgrade | None) -> LoadedUpgrade | None:
        """The upgrade as replicas need it; None when they need nothing of it. Raises Unavailable while an artifact cannot be
        read."""
        if record is None or _needs_nothing(collection, record):
            self._loaded.pop(collection.uid, None)
            return None
        files = await self._files(record)
        known = self._loaded.get(collection.uid)
        if known is None or _made_of(known.record) != _made_of(record):
            try:
                known = await asyncio.to_thread(loaded, record, collection, files)
            except ArtifactInvalid as error:
                raise Unavailable(f"an artifact of the upgrade of {collection.name} {error}") from error
        self._loaded[collection.uid] = known = known.at(record)
        return known

    async def fetch_planned(self, record: Upgrade | None) -> None:
        """Sees to it that this server holds what it needs from the start on. Raises Unavailable as above."""
        if record is not None and record.state is UpgradeState.PLANNED:
            await self._files(record)

    async def _files(self, record: Upgrade) -> dict[str, bytes]:
        return {digest: await self._artifacts.get(digest) for digest in record.artifacts}


def _needs_nothing(collection: Collection, record: Upgrade) -> bool:
    is_undone = record.state is UpgradeState.ROLLED_BACK and collection.model(record.new_model.name) is None
    return is_undone or record.state in _NEEDS_NOTHING


def _made_of(record: Upgrade) -> tuple[object, ...]:
    """Two plans may share their artifacts and mean other models."""
    return record.number, record.old_model, record.new_model, record.artifacts
