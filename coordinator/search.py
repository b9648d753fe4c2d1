"""THE READ STORY: admit, plan, batch, fan out, merge.

1. Admit: bounded work runs, bounded work waits, the rest is refused at once (admission).
2. Plan: which model, which shards, which replicas, seen what; from the last registry view, so that searches go on
   while Redis is down (plan).
3. Batch and fan out: one replica per shard, queries of one plan together, another replica when one fails or is slow
   (gathering, fanout, batching).
4. Merge to one exact top-k and say what was really searched; a missing shard is an error unless allowed (merge,
   coverage). A reserve of the deadline is kept for this.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator import coverage, merge
from coordinator.admission import Admission
from coordinator.batching import Batcher, LaneKey, ShardAnswer
from coordinator.deadline import Deadline
from coordinator.fanout import Ask, Gathered
from coordinator.gathering import Gathering
from coordinator.merge import Hits
from coordinator.plan import ReadPlan, ShardPlan, Target, choose_model, plan_read
from coordinator.query import SearchInput
from coordinator.views import Views
from kintsugi.errors import FailedPrecondition
from kintsugi.metrics import FloatArray
from kintsugi.registry.records import Collection, Model, View
from kintsugi.telemetry import metric_names, metrics
from kintsugi.telemetry.trace_names import SpanEvent
from kintsugi.telemetry.tracing import Stages
from kintsugi.v1 import types_pb2

# More hits than this are merged beside the event loop.
_MERGE_INLINE_HITS = 20_000

_PARTIAL = metrics.counter(metric_names.PARTIAL_RESPONSES)


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    hits: Hits
    model: str
    coverage: types_pb2.Coverage


class Searches:
    def __init__(
        self,
        views: Views,
        admission: Admission,
        batcher: Batcher,
        gathering: Gathering,
        *,
        merge_reserve_s: float = 0.05,
    ) -> None:
        self._views = views
        self._admission = admission
        self._batcher = batcher
        self._gathering = gathering
        self._merge_reserve_s = merge_reserve_s

    async def search(self, wanted: SearchInput, deadline: Deadline) -> SearchAnswer:
        options, stages = wanted.options, Stages()
        async with self._admission.admit(wanted.count, deadline):
            stages.reached(SpanEvent.ADMIT)
            view, collection, model = await self._choose(wanted, deadline)
            queries = wanted.queries(model)
            plan = plan_read(view, collection, options.at_least, "options.at_least")
            stages.reached(SpanEvent.PLAN, shards=len(plan.shards))
            gathered = await self._gathering.run(
                plan,
                options.at_least,
                lambda current: self._ask(current, model, wanted, queries),
                deadline.earlier_by(self._merge_reserve_s),
            )
            stages.reached(SpanEvent.FAN_OUT, failed_shards=len(gathered.failures))
            self._note(collection, gathered)
            coverage.require(collection, len(plan.shards), gathered.failures, options.min_coverage)
            hits = await _merged([gathered.answers[shard].hits for shard in sorted(gathered.answers)], options.k)
            stages.reached(SpanEvent.MERGE)
        if gathered.failures:
            _PARTIAL.inc()
        seen = coverage.report(collection, model, gathered, self._views.last_known_documents)
        return SearchAnswer(hits, model.name, seen)

    async def _choose(self, wanted: SearchInput, deadline: Deadline) -> tuple[View, Collection, Model]:
        view, collection = await self._views.collection(wanted.collection, deadline)
        try:
            return view, collection, choose_model(collection, wanted.model)
        except FailedPrecondition:
            # Another coordinator may have declared the model a moment ago.
            await self._views.refreshed(deadline)
            view, collection = await self._views.collection(wanted.collection, deadline)
            return view, collection, choose_model(collection, wanted.model)

    def _ask(self, plan: ReadPlan, model: Model, wanted: SearchInput, queries: FloatArray) -> Ask[ShardAnswer]:
        options = wanted.options

        async def ask(shard: ShardPlan, target: Target, deadline: Deadline) -> ShardAnswer:
            lane = LaneKey(
                address=target.address,
                collection_uid=plan.collection.uid,
                shard=shard.shard,
                model=model.name,
                k=options.k,
                exact=options.exact,
                oversampling=options.oversampling,
                at_least=shard.at_least,
                attributes=options.attributes,
                text=options.text,
                registry_revision=plan.revision,
            )
            return await self._batcher.search(lane, queries, deadline)

        return ask

    def _note(self, collection: Collection, gathered: Gathered[ShardAnswer]) -> None:
        for shard, answer in gathered.answers.items():
            self._views.note_documents(collection.uid, shard, answer.documents)


async def _merged(parts: Sequence[Hits], k: int) -> Hits:
    if len(parts) > 1 and sum(map(len, parts)) > _MERGE_INLINE_HITS:
        return await asyncio.to_thread(merge.merge, parts, k)
    return merge.merge(parts, k)
