"""THE READ STORY: admit, plan, batch, fan out, merge.

1. Admit: bounded work runs, bounded work waits, the rest is refused at once (admission).
2. Plan: which model, which shards, which replicas, seen what; from the last registry view, so that searches go on
   while Redis is down (plan).
3. Batch and fan out: one replica per shard, queries of one plan together, another replica when one fails or is slow
   (gathering, fanout, batching).
4. Merge to one exact top-k and say what was really searched; a missing shard is an error unless allowed (merge,
   coverage). A reserve of the deadline is kept for this. Groups may need a second question to some shards (grouping).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordinator import coverage, grouping, merge
from coordinator.admission import Admission
from coordinator.batching import Batcher, LaneKey, ShardAnswer
from coordinator.deadline import Deadline
from coordinator.fanout import Ask, Gathered
from coordinator.gathering import Gathering
from coordinator.grouping import Unsettled
from coordinator.merge import Hits, Ids
from coordinator.plan import Asked, ReadPlan, ShardPlan, Target, choose_models, plan_read
from coordinator.query import Grouping, Options, SearchInput
from coordinator.views import Views
from kintsugi import limits
from kintsugi.errors import FailedPrecondition, KintsugiError
from kintsugi.filters.tree import OneOf
from kintsugi.metrics import FloatArray
from kintsugi.registry.records import Collection, Model, View
from kintsugi.telemetry import metric_names, metrics
from kintsugi.telemetry.trace_names import SpanEvent
from kintsugi.telemetry.tracing import Stages
from kintsugi.v1 import types_pb2

# More hits than this are merged beside the event loop.
_MERGE_INLINE_HITS = 20_000
# How many queries of a batch may ask for more of their groups at once.
_SECOND_QUESTIONS = 8

_PARTIAL = metrics.counter(metric_names.PARTIAL_RESPONSES)


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """`projected_model`: whose stored vectors the projected hits have. `unmigrated`: candidates without a vector of the model,
    when they were asked for."""

    hits: Hits
    model: str
    coverage: types_pb2.Coverage
    projected_model: str = ""
    unmigrated: Ids | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    """A search whose shards are being asked, until this deadline. `others`: the queries by the other model of an upgrade."""

    plan: ReadPlan
    model: Model
    options: Options
    queries: FloatArray
    deadline: Deadline
    others: FloatArray | None = None

    def of_query(self, query: int) -> "_Call":
        """The same for one of the queries alone."""
        one = slice(query, query + 1)
        others = None if self.others is None else self.others[one]
        return replace(self, queries=self.queries[one], others=others)


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
            view, collection, asked = await self._choose(wanted, deadline)
            model, queries = asked.model, wanted.given[asked.place].queries(asked.model)
            others = None if asked.other is None else wanted.given[asked.other_place].queries(asked.other)
            plan = plan_read(view, collection, options.at_least, "options.at_least")
            stages.reached(SpanEvent.PLAN, shards=len(plan.shards))
            call = _Call(plan, model, options, queries, deadline.earlier_by(self._merge_reserve_s), others)
            gathered = await self._gather(call)
            stages.reached(SpanEvent.FAN_OUT, failed_shards=len(gathered.failures))
            self._note(collection, gathered)
            coverage.require(collection, len(plan.shards), gathered.failures, options.min_coverage)
            hits = await _merged([gathered.answers[shard].hits for shard in sorted(gathered.answers)], options)
            if options.group is not None:
                hits, gathered = await self._completed(call, options.group, gathered, hits)
                coverage.require(collection, len(plan.shards), gathered.failures, options.min_coverage)
            stages.reached(SpanEvent.MERGE)
        if gathered.failures:
            _PARTIAL.inc()
        seen = coverage.report(collection, model, gathered, self._views.last_known_documents)
        answers = list(gathered.answers.values())
        projected = next((answer.projected_model for answer in answers if answer.projected_model), "")
        return SearchAnswer(
            hits, model.name, seen, projected, _unmigrated(answers) if options.tell_unmigrated else None
        )

    async def _choose(self, wanted: SearchInput, deadline: Deadline) -> tuple[View, Collection, Asked]:
        view, collection = await self._views.collection(wanted.collection, deadline)
        try:
            return view, collection, choose_models(view, collection, wanted.models)
        except FailedPrecondition:
            # Another coordinator may have declared the model a moment ago.
            await self._views.refreshed(deadline)
            view, collection = await self._views.collection(wanted.collection, deadline)
            return view, collection, choose_models(view, collection, wanted.models)

    async def _gather(self, call: _Call) -> Gathered[ShardAnswer]:
        at_least = call.options.at_least
        return await self._gathering.run(call.plan, at_least, lambda plan: self._ask(plan, call), call.deadline)

    async def _completed(
        self, call: _Call, group: Grouping, gathered: Gathered[ShardAnswer], hits: Hits
    ) -> tuple[Hits, Gathered[ShardAnswer]]:
        """The groups of `hits` with all of their best hits, after asking some shards for more of them when need be.

        A shard that fails then counts as not answering, although what it said before stays."""
        parts = {shard: answer.hits for shard, answer in gathered.answers.items()}
        missing = grouping.unsettled(parts, hits, call.options.k, group.size)
        if not missing:
            return hits, gathered
        at_once = asyncio.Semaphore(_SECOND_QUESTIONS)
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._ask_again(call, group, one, at_once)) for one in missing]
        later = [
            grouping.placed(answer.hits, one.query, len(call.queries))
            for one, task in zip(missing, asked, strict=True)
            for answer in task.result().answers.values()
        ]
        failures = {shard: error for task in asked for shard, error in task.result().failures.items()}
        answers = {shard: answer for shard, answer in gathered.answers.items() if shard not in failures}
        hits = await _merged([*parts.values(), *later], call.options)
        return hits, Gathered(answers, {**gathered.failures, **failures})

    async def _ask_again(
        self, call: _Call, group: Grouping, missing: Unsettled, at_once: asyncio.Semaphore
    ) -> Gathered[ShardAnswer]:
        """The hits of groups that are known to be among the best, from the shards that may hold more of them."""
        shards = tuple(shard for shard in call.plan.shards if shard.shard in missing.shards)
        only = replace(group, only=OneOf(group.attribute, missing.values))
        again = replace(
            call.of_query(missing.query),
            plan=replace(call.plan, shards=shards),
            options=replace(call.options, k=len(missing.values), group=only),
        )
        try:
            async with at_once:
                return await self._gather(again)
        except KintsugiError as error:
            return Gathered({}, dict.fromkeys(missing.shards, error))

    def _ask(self, plan: ReadPlan, call: _Call) -> Ask[ShardAnswer]:
        options = call.options

        def ask(shard: ShardPlan, target: Target, deadline: Deadline) -> asyncio.Future[ShardAnswer]:
            lane = LaneKey(
                address=target.address,
                collection_uid=plan.collection.uid,
                shard=shard.shard,
                model=call.model.name,
                k=options.reach,
                exact=options.exact,
                oversampling=options.oversampling,
                at_least=shard.at_least,
                attributes=options.attributes,
                text=options.text,
                registry_revision=plan.revision,
                filter=options.filter,
                min_score=options.min_score,
                group=options.group,
                has_others=call.others is not None,
                tell_unmigrated=options.tell_unmigrated,
                ef_search=options.ef_search,
            )
            return self._batcher.search(lane, call.queries, deadline, call.others)

        return ask

    def _note(self, collection: Collection, gathered: Gathered[ShardAnswer]) -> None:
        for shard, answer in gathered.answers.items():
            self._views.note_documents(collection.uid, shard, answer.documents)


def _unmigrated(answers: Sequence[ShardAnswer]) -> Ids | None:
    told = [answer.unmigrated for answer in answers if answer.unmigrated is not None]
    return merge.union(told, limits.MAX_HITS) if told else None


async def _merged(parts: Sequence[Hits], options: Options) -> Hits:
    if len(parts) > 1 and sum(map(len, parts)) > _MERGE_INLINE_HITS:
        return await asyncio.to_thread(_merge, parts, options)
    return _merge(parts, options)


def _merge(parts: Sequence[Hits], options: Options) -> Hits:
    if options.group is not None:
        return grouping.merge_groups(parts, options.k, options.group.size, options.min_score)
    return merge.merge(parts, options.k, offset=options.offset, min_score=options.min_score)
