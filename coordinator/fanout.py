"""Asks one replica of each shard, and another one when that fails or is slow.

1. The least loaded in-sync replica is asked first, a slow one last. A failure that another replica may not share (connection
   refused or lost, not hosted, not serving, overloaded, defect) moves on to the next one at once.
2. A replica slower than usual gets a competitor; the first answer wins and the other call is cancelled. Such second
   tries are a bounded share of all calls.
3. A shard fails only when all its replicas failed or the deadline passed; its failure then says what each one said.

Knows nothing about what is asked: the call is a parameter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import Counter

from coordinator.deadline import Deadline
from coordinator.load import ReplicaLoad
from coordinator.plan import ShardPlan, Target
from kintsugi.errors import (
    DeadlineExceeded,
    Internal,
    KintsugiError,
    NotFound,
    ResourceExhausted,
    StalePlan,
    Unavailable,
)
from kintsugi.rpc.errors import ANSWER_TOO_LARGE, code_name
from kintsugi.telemetry import metric_names, metrics, tracing
from kintsugi.telemetry.trace_names import SpanEvent

Answer = TypeVar("Answer")
Ask = Callable[[ShardPlan, Target, Deadline], Awaitable[Answer]]

# What one replica may say while another one of the same shard can still answer.
_ANOTHER_MAY_ANSWER = (Unavailable, NotFound, StalePlan, ResourceExhausted, Internal)

_FAILURES = metrics.counter(metric_names.SHARD_FAILURES)
_RETRIES = metrics.counter(metric_names.FANOUT_RETRIES)
_SECOND_TRIES = metrics.counter(metric_names.SECOND_TRIES)


@dataclass(frozen=True, slots=True)
class Gathered(Generic[Answer]):
    """What became of each shard: every shard number is in exactly one of the two."""

    answers: dict[int, Answer]
    failures: dict[int, KintsugiError]

    def updated(self, later: "Gathered[Answer]") -> "Gathered[Answer]":
        """After another round for some of the shards that failed."""
        failures = {**self.failures, **later.failures}
        return Gathered(
            {**self.answers, **later.answers},
            {shard: error for shard, error in failures.items() if shard not in later.answers},
        )


class FanOut:
    def __init__(self, load: ReplicaLoad) -> None:
        self._load = load

    async def gather(self, shards: Sequence[ShardPlan], ask: Ask[Answer], deadline: Deadline) -> Gathered[Answer]:
        """Asks all shards at once and waits for all of them."""
        answers: dict[int, Answer] = {}
        failures: dict[int, KintsugiError] = {}

        async def one(shard: ShardPlan) -> None:
            try:
                answers[shard.shard] = await self.ask_shard(shard, ask, deadline)
            except KintsugiError as error:
                failures[shard.shard] = error
                _FAILURES.labels(code_name(error)).inc()

        if len(shards) == 1:
            await one(shards[0])
        else:
            async with asyncio.TaskGroup() as group:
                for shard in shards:
                    group.create_task(one(shard))
        return Gathered(answers, failures)

    async def ask_shard(self, shard: ShardPlan, ask: Ask[Answer], deadline: Deadline) -> Answer:
        """The answer of one replica. Raises what the replicas said, as one error."""
        race = _Race(self._load, shard, ask, deadline)
        try:
            return await race.run()
        finally:
            race.cancel()


@dataclass(frozen=True, slots=True)
class _Try:
    target: Target
    asked_at: float


class _Race(Generic[Answer]):
    """The tries for one shard of one read."""

    def __init__(self, load: ReplicaLoad, shard: ShardPlan, ask: Ask[Answer], deadline: Deadline) -> None:
        self._load = load
        self._shard = shard
        self._ask = ask
        self._deadline = deadline
        self._untried = load.order(shard.targets)
        self._running: dict[asyncio.Task[Answer], _Try] = {}
        self._failed: list[tuple[Target, KintsugiError]] = []
        self._patience_s = 0.0

    async def run(self) -> Answer:
        if not self._untried:
            raise Unavailable("it has no replica in sync", reason="NO_REPLICA")
        self._load.earn_second_try()
        self._start_next()
        while self._running:
            patience_s = self._patience_s if self._untried else self._deadline.remaining_s
            timeout_s = min(self._deadline.remaining_s, patience_s)
            done, _ = await asyncio.wait(self._running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            winner = self._settle(done)
            if winner is not None:
                return winner.result()
            if self._deadline.passed and not done:
                raise self._too_late()
            if self._untried and not self._running:
                self._note(_RETRIES, SpanEvent.RETRY)
                self._start_next()
            elif self._untried and not done and self._may_compete():
                self._note(_SECOND_TRIES, SpanEvent.SECOND_TRY)
                self._start_next()
        raise self._all_failed()

    def cancel(self) -> None:
        for task in self._running:
            task.add_done_callback(_ignore_outcome)
            task.cancel()

    def _note(self, counter: Counter, event: SpanEvent) -> None:
        counter.inc()
        tracing.event(event, shard=self._shard.shard, member=self._untried[0].member)

    def _start_next(self) -> None:
        target = self._untried.pop(0)
        if self._untried:
            self._patience_s = self._load.second_try_delay_s(target, self._untried)
        self._running[asyncio.create_task(self._try(target))] = _Try(target, self._deadline.clock())

    async def _try(self, target: Target) -> Answer:
        started = self._deadline.clock()
        with self._load.asking(target):
            answer = await self._ask(self._shard, target, self._deadline)
        waited_for_write = self._shard.at_least is not None
        self._load.succeeded(target, None if waited_for_write else self._deadline.clock() - started)
        return answer

    def _settle(self, done: "set[asyncio.Task[Answer]]") -> "asyncio.Task[Answer] | None":
        """Takes finished tries out of the race. Returns one that succeeded; raises what no other replica can heal."""
        winner, final = None, None
        for task in done:
            target = self._running.pop(task).target
            error = _error_of(task)
            if error is None:
                winner = task
            elif _another_may_answer(error):
                self._failed.append((target, error))
                # A stale plan is a matter of revisions, not of the replica's health.
                if not isinstance(error, StalePlan):
                    self._load.failed(target)
            else:
                final = error
        if winner is None and final is not None:
            raise final
        if winner is not None:
            for loser in self._running.values():
                self._load.outrun(loser.target, loser.asked_at)
        return winner

    def _may_compete(self) -> bool:
        """Asks for the replica that was asked last."""
        slow = next(reversed(self._running.values()))
        granted = self._load.may_compete(slow.target, slow.asked_at)
        if not granted:
            self._patience_s = self._load.patience_s
        return granted

    def _too_late(self) -> DeadlineExceeded:
        for slow in self._running.values():
            self._load.outrun(slow.target, slow.asked_at)
        waiting = ", ".join(slow.target.member for slow in self._running.values())
        return DeadlineExceeded(f"{waiting}: no answer within the deadline")

    def _all_failed(self) -> KintsugiError:
        """The kindest error that was seen, with what every replica said."""
        said = ", ".join(f"{target.member}: {error.message}" for target, error in self._failed)
        stale = next((error for _, error in self._failed if isinstance(error, StalePlan)), None)
        if stale is not None:
            return StalePlan(said, revision=stale.revision)
        if all(isinstance(error, ResourceExhausted) for _, error in self._failed):
            first = self._failed[0][1]
            return ResourceExhausted(said, reason=first.reason, retry_delay_s=first.retry_delay_s)
        if all(isinstance(error, NotFound) for _, error in self._failed):
            return NotFound(said, reason="REPLICA_NOT_HOSTED")
        return Unavailable(said)


def _another_may_answer(error: KintsugiError) -> bool:
    # An answer that is too large is too large on every replica.
    return isinstance(error, _ANOTHER_MAY_ANSWER) and error.reason != ANSWER_TOO_LARGE


def _ignore_outcome(task: "asyncio.Task[Answer]") -> None:
    if not task.cancelled():
        task.exception()


def _error_of(task: "asyncio.Task[Answer]") -> KintsugiError | None:
    if task.cancelled():
        return Unavailable("the call was cancelled")
    error = task.exception()
    if error is None or isinstance(error, KintsugiError):
        return error
    raise error
