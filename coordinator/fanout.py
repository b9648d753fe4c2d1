"""Asks one replica of each shard, and another one when that fails or is slow.

1. The least loaded in-sync replica is asked first, a slow one last. A failure that another replica may not share (connection
   refused or lost, not hosted, not serving, overloaded, defect) moves on to the next one at once.
2. A replica slower than usual gets a competitor; the first answer wins and the other call is cancelled. Such second
   tries are a bounded share of all calls.
3. A shard fails only when all its replicas failed or the deadline passed; its failure then says what each one said.

Knows nothing about what is asked: the call is a parameter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
        gathered: Gathered[Answer] = Gathered({}, {})
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def ended(shard: int, outcome: "Answer | BaseException") -> None:
            if over.done():
                return
            if isinstance(outcome, KintsugiError):
                gathered.failures[shard] = outcome
                _FAILURES.labels(code_name(outcome)).inc()
            elif isinstance(outcome, BaseException):
                over.set_exception(outcome)
                return
            else:
                gathered.answers[shard] = outcome
            if len(gathered.answers) + len(gathered.failures) == len(races):
                over.set_result(None)

        races = [_Race(self._load, shard, ask, deadline, ended) for shard in shards]
        too_late = loop.call_later(deadline.remaining_s, _expire, races)
        try:
            for race in races:
                race.start()
            if races:
                await over
        finally:
            too_late.cancel()
            for race in races:
                race.end()
        return gathered


@dataclass(frozen=True, slots=True)
class _Try:
    target: Target
    asked_at: float


class _Race(Generic[Answer]):
    """The tries for one shard of one read. It runs in callbacks: a task per try, and one that waits for them, would cost more
    than all that a coordinator does for a search otherwise. `ended` is told once how it ended: by an answer, by why there is
    none, or by a defect of ours."""

    def __init__(
        self,
        load: ReplicaLoad,
        shard: ShardPlan,
        ask: Ask[Answer],
        deadline: Deadline,
        ended: "Callable[[int, Answer | BaseException], None]",
    ) -> None:
        self._load = load
        self._shard = shard
        self._ask = ask
        self._deadline = deadline
        self._ended = ended
        self._untried = load.order(shard.targets)
        self._running: dict[asyncio.Future[Answer], _Try] = {}
        self._failed: list[tuple[Target, KintsugiError]] = []
        self._second_try: asyncio.TimerHandle | None = None
        self._is_over = False

    def start(self) -> None:
        if not self._untried:
            self._settle(Unavailable("it has no replica in sync", reason="NO_REPLICA"))
            return
        self._load.earn_second_try()
        self._start_next()

    def end(self) -> None:
        """Gives up what runs. Nothing is told any more."""
        self._is_over = True
        if self._second_try is not None:
            self._second_try.cancel()
        running, self._running = self._running, {}
        for future, tried in running.items():
            self._load.left(tried.target)
            future.cancel()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._is_over:
            return
        for slow in self._running.values():
            self._load.outrun(slow.target, self._took_s(slow))
        waiting = ", ".join(slow.target.member for slow in self._running.values())
        self._settle(DeadlineExceeded(f"{waiting}: no answer within the deadline"))

    def _start_next(self) -> None:
        target = self._untried.pop(0)
        try:
            future = asyncio.ensure_future(self._ask(self._shard, target, self._deadline))
        except Exception as defect:  # noqa: BLE001 -- raised in a callback, nobody would hear of it
            self._settle(defect)
            return
        self._load.asked(target)
        self._running[future] = _Try(target, self._deadline.clock())
        future.add_done_callback(self._told)
        if self._untried:
            self._be_patient(self._load.second_try_delay_s(target, self._untried))

    def _be_patient(self, seconds: float) -> None:
        if self._second_try is not None:
            self._second_try.cancel()
        self._second_try = asyncio.get_running_loop().call_later(seconds, self._compete)

    def _compete(self) -> None:
        """The replica that was asked last is slow."""
        if not self._untried:
            return
        slow = next(reversed(self._running.values()))
        if self._load.may_compete(slow.target):
            self._note(_SECOND_TRIES, SpanEvent.SECOND_TRY)
            self._start_next()
        else:
            self._be_patient(self._load.patience_s)

    def _told(self, future: "asyncio.Future[Answer]") -> None:
        """A try is done."""
        tried = self._running.pop(future, None)
        error = _error_of(future)
        if tried is None:  # given up
            return
        self._load.left(tried.target)
        if error is None:
            self._won(tried, future.result())
        elif isinstance(error, KintsugiError) and _another_may_answer(error):
            self._lost(tried.target, error)
        else:
            self._settle(error)

    def _won(self, tried: _Try, answer: Answer) -> None:
        self._load.succeeded(tried.target, self._took_s(tried))
        for loser in self._running.values():
            self._load.outrun(loser.target, self._took_s(loser))
        self._settle(answer)

    def _took_s(self, tried: _Try) -> float | None:
        """None when it says nothing about the replica, which waited for a write."""
        return None if self._shard.at_least is not None else self._deadline.clock() - tried.asked_at

    def _lost(self, target: Target, error: KintsugiError) -> None:
        self._failed.append((target, error))
        # A stale plan is a matter of revisions, not of the replica's health.
        if not isinstance(error, StalePlan):
            self._load.failed(target)
        if self._running:
            return
        if self._untried:
            self._note(_RETRIES, SpanEvent.RETRY)
            self._start_next()
        else:
            self._settle(self._all_failed())

    def _settle(self, outcome: "Answer | BaseException") -> None:
        self.end()
        self._ended(self._shard.shard, outcome)

    def _note(self, counter: Counter, event: SpanEvent) -> None:
        counter.inc()
        tracing.event(event, shard=self._shard.shard, member=self._untried[0].member)

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


def _expire(races: "Iterable[_Race[Answer]]") -> None:
    for race in races:
        race.expire()


def _another_may_answer(error: KintsugiError) -> bool:
    # An answer that is too large is too large on every replica.
    return isinstance(error, _ANOTHER_MAY_ANSWER) and error.reason != ANSWER_TOO_LARGE


def _error_of(future: "asyncio.Future[Answer]") -> BaseException | None:
    return Unavailable("the call was cancelled") if future.cancelled() else future.exception()
