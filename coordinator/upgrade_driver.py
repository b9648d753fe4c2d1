"""Moves upgrades on where nobody's command is needed: as soon as the replicas are as far as the next state demands.

1. Every coordinator runs it. Each step is a compare-and-set that applies to the state it was decided for, or not at all.
2. A rollback ends only when no write of the new model can slip in any more: what replicas tell of vectors stays true.
3. An upgrade is finished only when no write of the old model can slip in any more: the logs refuse writers that know a registry
   from before FINISHING, and the replicas are asked behind the last write that such a writer made.
4. Artifacts that the registry names are kept in Redis for good by the coordinators that see them named, and dropped by the same
   when it names them no more.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from coordinator.collections import Registry
from coordinator.upgrade_progress import Progress
from coordinator.upgrade_reports import Artifacts, UpgradeReports
from kintsugi.errors import KintsugiError
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Collection, Record, Upgrade, UpgradeState, View
from kintsugi.registry.store import Delete
from kintsugi.registry.upgrades import UpgradeEvent, collection_after, moved, stay
from kintsugi.registry.watch import RegistryHealth
from kintsugi.telemetry import LogEvent, logger

_log = logger("upgrades")

_INTERVAL_S = 0.5
_S, _E = UpgradeState, UpgradeEvent


class Fences(Protocol):
    """The part of LogWriter that fences logs."""

    async def fence(self, uid: str, shard: int, incarnation: int, epoch: int, revision: int) -> int: ...


class UpgradeDriver:
    """`now_us` is the wall clock in microseconds since the Unix epoch."""

    def __init__(
        self,
        registry: Registry,
        reports: UpgradeReports,
        fences: Fences,
        artifacts: Artifacts,
        now_us: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._reports = reports
        self._fences = fences
        self._artifacts = artifacts
        self._now_us = now_us
        # Those that this coordinator has kept, because the registry named them at an earlier sweep.
        self._kept: set[str] = set()

    async def run(self) -> None:
        """Sweeps twice a second until cancelled; what fails is tried again at the next sweep."""
        while True:
            await self.sweep()
            await asyncio.sleep(_INTERVAL_S)

    async def sweep(self) -> None:
        view = self._registry.view
        if view is None or self._registry.health is not RegistryHealth.OK:
            return
        for uid, upgrade in sorted(view.upgrades.items()):
            with suppress(KintsugiError):
                await self._drive(view, view.collections[uid], upgrade)
        await self._keep({artifact for upgrade in view.upgrades.values() for artifact in upgrade.artifacts})

    async def _keep(self, named: set[str]) -> None:
        """What fails to be kept is tried again; what fails to be dropped stays until somebody plans with it again."""
        for artifact in sorted(named - self._kept):
            with suppress(KintsugiError):
                await self._artifacts.keep(artifact)
                self._kept.add(artifact)
        for artifact in sorted(self._kept - named):
            self._kept.remove(artifact)
            with suppress(KintsugiError):
                await self._artifacts.drop(artifact)

    async def _drive(self, view: View, collection: Collection, upgrade: Upgrade) -> None:
        match upgrade.state:
            case _S.SERVING_BOTH | _S.MAPPING | _S.ROLLING_BACK:
                event = next_event(upgrade, await self._reports.progress(collection))
                if event is _E.RETURNED:
                    await self._fence(view, collection)
            case _S.FINISHING:
                event = await self._finish(view, collection)
            case _:
                return
        if event is not None:
            await self._registry.update(lambda current: after(current, upgrade, event, self._now_us()))
            _log.info(LogEvent.UPGRADE_MOVED, collection=collection.name, state=upgrade.state.value, on=event.value)

    async def _finish(self, view: View, collection: Collection) -> UpgradeEvent | None:
        """Fences every log, again at each sweep since a restored log has forgotten it, and then looks."""
        ends = await self._fence(view, collection)
        progress = await self._reports.progress(collection)
        if progress.behind(ends):
            return None
        with_vector, documents = progress.vectors(new=True)
        return _E.COMPLETE if with_vector >= documents else _E.INCOMPLETE

    async def _fence(self, view: View, collection: Collection) -> dict[int, int]:
        """Refuses writes that were checked against an earlier registry than this. Returns where each log ends."""
        version = view.snapshot
        return {
            shard.shard: await self._fences.fence(
                collection.uid, shard.shard, version.incarnation, shard.epoch, version.revision
            )
            for shard in view.shards_of(collection)
        }


def next_event(upgrade: Upgrade, progress: Progress) -> UpgradeEvent | None:
    """What the replicas have reached; None while one of them has not."""
    old, new = upgrade.old_model, upgrade.new_model.name
    match upgrade.state:
        case _S.SERVING_BOTH if not progress.not_serving((old, new)):
            return _E.OPENED_TO_MAP if upgrade.strategy is Strategy.MAP else _E.OPENED
        case _S.MAPPING if not progress.not_mapped():
            return _E.MAPPED
        case _S.ROLLING_BACK if not progress.not_serving((old,), (new,)):
            return _E.RETURNED
    return None


def after(view: View, upgrade: Upgrade, event: UpgradeEvent, now_us: int) -> Sequence[Record | Delete]:
    """The records after an event of this upgrade; none when somebody else moved it on."""
    current = view.upgrades.get(upgrade.collection_uid)
    if current is None or stay(current) != stay(upgrade):
        return []
    then = moved(current, event, now_us)
    return [then, collection_after(view.collections[upgrade.collection_uid], then)]
