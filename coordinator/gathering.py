"""Carries out a read plan on all its shards, and once more on a fresh plan where the registry may have moved on.

A plan can be old: the replica moved, its server has another address, the model is served elsewhere. So when shards
fail, the registry is refreshed, and those whose plan changed (or whose replicas said STALE_PLAN) are asked again,
once, within the deadline.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from coordinator.deadline import Deadline
from coordinator.fanout import Ask, FanOut, Gathered
from coordinator.plan import ReadPlan, ShardPlan, plan_read
from coordinator.views import Views
from kintsugi.errors import Aborted, InvalidArgument, NotFound, StalePlan
from kintsugi.telemetry import metric_names, metrics
from kintsugi.tokens import Token

Answer = TypeVar("Answer")

_REPLANS = metrics.counter(metric_names.REPLANS)


class Gathering:
    def __init__(self, views: Views, fanout: FanOut) -> None:
        self._views = views
        self._fanout = fanout

    async def run(
        self, plan: ReadPlan, token: Token | None, ask_for: Callable[[ReadPlan], Ask[Answer]], deadline: Deadline
    ) -> Gathered[Answer]:
        """`ask_for` makes the call for a plan, which names the registry revision to the replicas."""
        gathered = await self._fanout.gather(plan.shards, ask_for(plan), deadline)
        if not gathered.failures or deadline.passed or _is_final(gathered):
            return gathered
        revision = max((e.revision for e in gathered.failures.values() if isinstance(e, StalePlan)), default=0)
        view = await self._views.refreshed(deadline, revision=revision)
        collection = view.collections.get(plan.collection.uid)
        if collection is None:
            raise NotFound(
                f"collection {plan.collection.name} was deleted", field="collection", reason="COLLECTION_NOT_FOUND"
            )
        fresh = plan_read(view, collection, token)
        again = tuple(_worth_asking(fresh.shards, plan, gathered))
        if not again:
            return gathered
        _REPLANS.inc()
        return gathered.updated(await self._fanout.gather(again, ask_for(fresh), deadline))


def _worth_asking(shards: Iterable[ShardPlan], old: ReadPlan, gathered: Gathered[Answer]) -> Iterable[ShardPlan]:
    targets = {shard.shard: shard.targets for shard in old.shards}
    for shard in shards:
        error = gathered.failures.get(shard.shard)
        if error is not None and (isinstance(error, StalePlan) or shard.targets != targets[shard.shard]):
            yield shard


def _is_final(gathered: Gathered[Answer]) -> bool:
    """Whether a failure is the request's own fault, so that another round cannot help."""
    return any(isinstance(error, Aborted | InvalidArgument) for error in gathered.failures.values())
