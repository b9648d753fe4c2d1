"""What the shard servers say of an upgrade: how far each replica is, how good its new index is, the planner's report.

Never fails for who does not answer: the progress says so. Decides nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from coordinator.collection_spec import model_message
from coordinator.collections import Registry
from coordinator.deadline import Deadline
from coordinator.replica_calls import ReplicaCalls, answered
from coordinator.upgrade_progress import (
    IndexRecall,
    Progress,
    ReplicaAnswer,
    counted,
    progress_of,
    query_vectors,
    waits_for,
)
from coordinator.views import Views
from kintsugi.errors import KintsugiError
from kintsugi.internal.v1 import shard_pb2
from kintsugi.projections.artifact import digest
from kintsugi.registry.records import Collection, Role, Upgrade
from kintsugi.registry.upgrades_wire import CALIBRATIONS, STATES, STRATEGIES
from kintsugi.v1 import upgrades_pb2

# The fewest searches that tell the recall of an index well enough to decide by it: with 100, to about 0.02.
_GATE_QUERIES = 100
_GATE_K = 10


class Artifacts(Protocol):
    """ArtifactCache."""

    async def put(self, data: bytes) -> str: ...
    async def get(self, name: str) -> bytes | None: ...
    async def lasts(self, name: str) -> bool: ...
    async def keep(self, name: str) -> None: ...
    async def drop(self, name: str) -> None: ...


class UpgradeReports:
    def __init__(self, registry: Registry, views: Views, calls: ReplicaCalls, artifacts: Artifacts) -> None:
        self._registry = registry
        self._views = views
        self._calls = calls
        self._artifacts = artifacts

    async def progress(self, collection: Collection) -> Progress:
        """What every replica that counts says."""
        places = counted(self._views.current(), collection, self._registry.leases)
        members = sorted({member for _, found in places for member in found})
        answers = await asyncio.gather(*(self._calls.status(member) for member in members), return_exceptions=True)
        return progress_of(places, answered(members, answers))

    async def get(self, collection: Collection, upgrade: Upgrade) -> upgrades_pb2.GetUpgradeResponse:
        progress, report = await asyncio.gather(self.progress(collection), self._planners_report(upgrade))
        return upgrades_pb2.GetUpgradeResponse(
            upgrade=to_message(upgrade, waits_for(upgrade, progress)), shards=progress.messages(), report=report
        )

    async def recalls(
        self, collection: Collection, model: str, progress: Progress, deadline: Deadline
    ) -> AsyncIterator[tuple[ReplicaAnswer, IndexRecall]]:
        """How much of what exact search finds the index of a model finds, by replica: as live searches measured it, or where
        there were few as a check finds now, which takes its time. Raises what the check raises."""
        for replica, live in progress.recalls(model):
            if live is not None and live.queries >= _GATE_QUERIES:
                yield replica, live
                continue
            request = shard_pb2.VerifyReplicaRequest(
                replica=shard_pb2.ReplicaRef(collection_uid=collection.uid, shard=replica.shard),
                queries=_GATE_QUERIES,
                k=_GATE_K,
                model=model,
            )
            checked = await self._calls.verify(replica.member, request, max(deadline.remaining_s, 0.001))
            if checked.queries:  # none of an empty shard
                by = f"{checked.queries} searches for documents of its own, made now"
                yield replica, IndexRecall(checked.recall, checked.queries, by)

    async def _planners_report(self, upgrade: Upgrade) -> bytes:
        """From Redis, or from any shard server; b'' when nobody has it."""
        view = self._views.current()
        servers = [member.id for member in view.members.values() if member.role is Role.SHARD]
        for member in (None, *(server for server in servers if server in self._registry.leases)):
            if (data := await self._believed(member, upgrade.report)) is not None:
                return data
        return b""

    async def _believed(self, member: str | None, name: str) -> bytes | None:
        """An artifact as Redis (None) or a member has it; None when it has none, or a damaged one, or does not answer."""
        try:
            data = await (self._artifacts.get(name) if member is None else self._calls.artifact(member, name))
        except KintsugiError:
            return None  # the next one may have it
        return data if data is not None and digest(data) == name else None


def to_message(upgrade: Upgrade, waiting: str = "") -> upgrades_pb2.Upgrade:
    message = upgrades_pb2.Upgrade(
        number=upgrade.number,
        old_model=upgrade.old_model,
        new_model=model_message(upgrade.new_model),
        state=STATES[upgrade.state],
        paused=upgrade.paused,
        strategy=STRATEGIES[upgrade.strategy],
        calibration=CALIBRATIONS[upgrade.calibration],
        min_migrated=upgrade.min_migrated,
        min_recall=upgrade.min_recall,
        waits_for=waiting,
        query_vectors=query_vectors(upgrade),
    )
    message.created_at.FromMicroseconds(upgrade.created_at_us)
    message.changed_at.FromMicroseconds(upgrade.changed_at_us)
    return message
