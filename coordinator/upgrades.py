"""THE STORY OF AN UPGRADE, as its operator tells it: plan, start, watch, pause, cut over, go back, finish.

1. A plan is registered after every artifact was checked and is in Redis: whoever reads the registry finds what it names. The
   driver keeps it there.
2. Each step is one compare-and-set of the registry, so that any coordinator may take it. A step that was taken before is
   repeated without effect; one that the state does not allow is refused and changes nothing.
3. What a step demands of the replicas is asked before it, of every in-sync replica that lives; who does not answer is waited
   for, not guessed about. The step is then taken by the upgrade that was asked about, in the same state, or by none.
What needs nobody's command is the driver's part (upgrade_driver.py).
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from coordinator import upgrade_plan
from coordinator.collections import Registry, current_view
from coordinator.deadline import Deadline
from coordinator.upgrade_plan import CheckedPlan
from coordinator.upgrade_progress import Progress
from coordinator.upgrade_reports import Artifacts, UpgradeReports
from coordinator.views import Views
from kintsugi.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from kintsugi.registry.records import Collection, Record, Upgrade, UpgradeState, View
from kintsugi.registry.store import Delete
from kintsugi.registry.upgrades import BACKFILL, OVER, TRANSITIONS, UpgradeEvent, collection_after, moved, stay
from kintsugi.v1 import upgrades_pb2

_S = UpgradeState
# Where a command finds the upgrade that was heard before.
_TAKEN: dict[UpgradeEvent, AbstractSet[UpgradeState]] = {
    UpgradeEvent.STARTED: {_S.SERVING_BOTH, _S.MAPPING, _S.BACKFILLING, _S.CUT_OVER, _S.FINISHING, _S.FINISHED},
    UpgradeEvent.CUT_OVER: {_S.CUT_OVER, _S.FINISHING, _S.FINISHED},
    UpgradeEvent.ROLLBACK_ASKED: {_S.ROLLING_BACK, _S.ROLLED_BACK},
    UpgradeEvent.FINISH_ASKED: {_S.FINISHING, _S.FINISHED},
}
_RETRY_DELAY_S = 1.0


class Upgrades:
    """`now_us` is the wall clock in microseconds since the Unix epoch."""

    def __init__(
        self,
        registry: Registry,
        views: Views,
        reports: UpgradeReports,
        artifacts: Artifacts,
        now_us: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._views = views
        self._reports = reports
        self._artifacts = artifacts
        self._now_us = now_us

    async def plan(self, request: upgrades_pb2.PlanUpgradeRequest, deadline: Deadline) -> Upgrade:
        name = request.collection
        await self._views.collection(name, deadline)
        view = await current_view(self._registry)
        collection = _collection(view, name)
        existing = view.upgrades.get(collection.uid)
        _check_room(name, existing)
        checked = await upgrade_plan.check(request.plan, collection, self._artifacts.get, force=request.force)
        # A plan that was given up before its start left nothing behind, and replicas have nothing to tell of it.
        was_started = existing is not None and collection.model(existing.new_model.name) is not None
        if existing is not None and existing.state is _S.ROLLED_BACK and was_started and not request.force:
            await self._check_returned(collection, existing)
        report = await self._artifacts.put(checked.report)
        for artifact in checked.artifacts:
            if not await self._artifacts.lasts(artifact):
                raise upgrade_plan.not_uploaded("plan", artifact)

        def change(view: View) -> Sequence[Record | Delete]:
            current = _collection(view, name)
            if current != collection:
                raise Unavailable(f"collection {name} changed while the plan was checked", reason="REGISTRY_MOVED")
            before = view.upgrades.get(collection.uid)
            _check_room(name, before)
            return [_record(collection, checked, report, before, self._now_us())]

        return _found(await self._registry.update(change), name)[1]

    async def get(self, name: str, deadline: Deadline) -> upgrades_pb2.GetUpgradeResponse:
        await self._views.collection(name, deadline)
        return await self._reports.get(*_found(await self._views.refreshed(deadline), name))

    async def start(self, name: str, deadline: Deadline) -> Upgrade:
        await self._views.collection(name, deadline)
        return await self._step(name, UpgradeEvent.STARTED)

    async def pause(self, name: str, deadline: Deadline, *, paused: bool) -> Upgrade:
        await self._views.collection(name, deadline)
        await current_view(self._registry)

        def change(view: View) -> Sequence[Record | Delete]:
            upgrade = _found(view, name)[1]
            if upgrade.state not in BACKFILL:
                raise _refused(name, upgrade, "it hands out no documents")
            return [msgspec.structs.replace(upgrade, paused=paused)]

        return _found(await self._registry.update(change), name)[1]

    async def cut_over(self, name: str, deadline: Deadline) -> Upgrade:
        await self._views.collection(name, deadline)
        collection, upgrade = _found(await current_view(self._registry), name)
        if upgrade.state is _S.BACKFILLING:
            await self._check_gate(collection, upgrade, deadline)
        return await self._step(name, UpgradeEvent.CUT_OVER, upgrade)

    async def roll_back(self, name: str, deadline: Deadline) -> Upgrade:
        await self._views.collection(name, deadline)
        return await self._step(name, UpgradeEvent.ROLLBACK_ASKED)

    async def finish(self, name: str, deadline: Deadline) -> Upgrade:
        await self._views.collection(name, deadline)
        collection, upgrade = _found(await current_view(self._registry), name)
        if upgrade.state is _S.CUT_OVER:
            with_vector, documents = (await self._told(collection)).vectors(new=True)
            if with_vector < documents:
                raise FailedPrecondition(
                    f"{documents - with_vector} of {documents} documents of {name} lack a vector of "
                    f"{upgrade.new_model.name}, there must be none",
                    reason="NOT_MIGRATED",
                )
        return await self._step(name, UpgradeEvent.FINISH_ASKED, upgrade)

    # --- What the steps demand ----------------------------------------------------------------------------------------

    async def _check_gate(self, collection: Collection, upgrade: Upgrade, deadline: Deadline) -> None:
        progress = await self._told(collection)
        with_vector, documents = progress.vectors(new=True)
        if with_vector < upgrade.min_migrated * documents:
            raise FailedPrecondition(
                f"{with_vector} of {documents} documents of {collection.name} have a vector of "
                f"{upgrade.new_model.name}, must be at least {upgrade.min_migrated:.4g} of them",
                reason="NOT_MIGRATED",
            )
        if problem := progress.without_index(upgrade.new_model.name):
            raise Unavailable(
                f"the recall of the index of {upgrade.new_model.name} is not known: {problem}",
                reason="RECALL_UNKNOWN",
                retry_delay_s=_RETRY_DELAY_S,
            )
        async for replica, found in self._reports.recalls(collection, upgrade.new_model.name, progress, deadline):
            if found.recall < upgrade.min_recall:
                raise FailedPrecondition(
                    f"recall of the index of {upgrade.new_model.name} is {found.recall:.4f} at {replica} by {found.by}, "
                    f"must be at least {upgrade.min_recall:.4g}",
                    reason="RECALL_TOO_LOW",
                )

    async def _check_returned(self, collection: Collection, upgrade: Upgrade) -> None:
        """Another plan replaces the projection by which documents without an old vector are found."""
        with_vector, documents = (await self._told(collection)).vectors(new=False)
        if with_vector < documents:
            raise FailedPrecondition(
                f"{documents - with_vector} of {documents} documents of {collection.name} lack a vector of "
                f"{upgrade.old_model} since the last rollback; re-embed them first, or force the plan",
                reason="NOT_MIGRATED",
            )

    async def _told(self, collection: Collection) -> Progress:
        """The progress, when every replica that counts told its own."""
        progress = await self._reports.progress(collection)
        if problem := progress.untold():
            raise Unavailable(
                f"the progress of {collection.name} is not known: {problem}",
                reason="PROGRESS_UNKNOWN",
                retry_delay_s=_RETRY_DELAY_S,
            )
        return progress

    async def _step(self, name: str, event: UpgradeEvent, checked: Upgrade | None = None) -> Upgrade:
        await current_view(self._registry)
        after = await self._registry.update(lambda view: stepped(view, name, event, self._now_us(), checked))
        return _found(after, name)[1]


def stepped(
    view: View, name: str, event: UpgradeEvent, now_us: int, checked: Upgrade | None = None
) -> Sequence[Record | Delete]:
    """The records after an event that was asked for: none when it came before, FailedPrecondition when it must not come.
    `checked` is the upgrade whose state was found to allow it: Unavailable when there is another one, or it moved."""
    collection, upgrade = _found(view, name)
    if checked is not None and _which(upgrade) != _which(checked):
        raise _moved(name)
    if upgrade.state in _TAKEN.get(event, ()):
        return []
    if event not in TRANSITIONS[upgrade.state]:
        raise _refused(name, upgrade, f"{event} is not possible now")
    if checked is not None and stay(upgrade) != stay(checked):
        raise _moved(name)
    after = moved(upgrade, event, now_us)
    return [after, collection_after(collection, after)]


def _which(upgrade: Upgrade) -> tuple[str, int]:
    return upgrade.collection_uid, upgrade.number


def _moved(name: str) -> Unavailable:
    return Unavailable(f"the upgrade of {name} moved while it was checked", reason="REGISTRY_MOVED")


def _record(collection: Collection, plan: CheckedPlan, report: str, before: Upgrade | None, now_us: int) -> Upgrade:
    """A plan that was not started gives its number to the one that replaces it."""
    last = 0 if before is None else before.number
    number = last if before is not None and before.state is _S.PLANNED else last + 1
    return Upgrade(
        collection_uid=collection.uid,
        number=number,
        old_model=collection.serving_model,
        new_model=plan.model,
        state=_S.PLANNED,
        strategy=plan.strategy,
        calibration=plan.calibration,
        bridge=plan.bridge,
        gallery_map=plan.gallery_map,
        reverse=plan.reverse,
        anchors=plan.anchors,
        report=report,
        min_migrated=plan.min_migrated,
        min_recall=plan.min_recall,
        uncertainty=plan.uncertainty,
        created_at_us=now_us,
        changed_at_us=now_us,
    )


def _check_room(name: str, existing: Upgrade | None) -> None:
    if existing is not None and existing.state not in {*OVER, _S.PLANNED}:
        raise AlreadyExists(
            f"the upgrade of {name} from {existing.old_model} to {existing.new_model.name} is {existing.state}, "
            "there may be one at a time",
            field="collection",
            reason="UPGRADE_UNDER_WAY",
        )


def _refused(name: str, upgrade: Upgrade, why: str) -> FailedPrecondition:
    return FailedPrecondition(f"the upgrade of {name} is {upgrade.state}: {why}", reason="UPGRADE_STATE")


def _collection(view: View, name: str) -> Collection:
    found = view.collections_by_name.get(name)
    if found is None:
        raise NotFound(f"there is no collection {name}", field="collection", reason="COLLECTION_NOT_FOUND")
    return found


def _found(view: View, name: str) -> tuple[Collection, Upgrade]:
    collection = _collection(view, name)
    upgrade = view.upgrades.get(collection.uid)
    if upgrade is None:
        raise NotFound(f"collection {name} has no upgrade", field="collection", reason="UPGRADE_NOT_FOUND")
    return collection, upgrade
