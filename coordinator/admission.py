"""Lets a bounded amount of reading run, a bounded amount wait, and sends the rest away at once with a retry delay.

Guarantees: at most `max_running` queries run (a single larger call runs alone); waiters go in the order they came; a
call is refused as soon as it is clear that it would not be answered within its deadline: when it comes, and again when its
turn comes, for work that ends too late is work that others lack. Knows nothing about what is admitted.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from coordinator.deadline import Clock, Deadline
from kintsugi.errors import DeadlineExceeded, ResourceExhausted
from kintsugi.telemetry import metric_names, metrics

_MIN_RETRY_DELAY_S = 0.05
_MAX_RETRY_DELAY_S = 5.0
# How much one more call changes the estimate of what a query costs.
_COST_WEIGHT = 0.1
# From so many running queries on, how fast they leave tells how fast more would: fewer are answered one by one, more together.
_CROWD = 32
# Calls are accepted that are expected to take at most their time by this: some take longer than expected.
_CAUTION = 2.0

_ADMITTED = metrics.counter(metric_names.ADMITTED_QUERIES)
_REFUSALS = metrics.counter(metric_names.ADMISSION_REFUSALS)


@dataclass(frozen=True, slots=True)
class AdmissionStats:
    running: int
    waiting: int
    refused: int


@dataclass(slots=True)
class _Waiter:
    queries: int
    deadline: Deadline
    admitted: asyncio.Future[None]
    is_queued: bool = True


class Admission:
    def __init__(self, *, max_running: int, max_waiting: int, clock: Clock) -> None:
        self._max_running = max_running
        self._crowd = min(max_running, _CROWD)
        self._max_waiting = max_waiting
        self._clock = clock
        self._running = 0
        self._waiting = 0
        self._refused = 0
        self._waiters: deque[_Waiter] = deque()
        # The time between two queries leaving, while there is a crowd.
        self._seconds_per_query = 0.0

    @asynccontextmanager
    async def admit(self, queries: int, deadline: Deadline) -> AsyncIterator[None]:
        """Runs its body once there is room for that many queries. Raises ResourceExhausted at once when the queue is
        full or too long for the deadline, DeadlineExceeded when the deadline passes while waiting."""
        if self._running >= self._crowd:
            self._refuse_hopeless(queries, deadline)
        if self._waiters or not self._has_room(queries):
            await self._wait(queries, deadline)
        else:
            self._running += queries
        started = self._clock()
        _ADMITTED.inc(queries)
        try:
            yield
        finally:
            self._learn(self._clock() - started)
            self._running -= queries
            self._wake()

    def stats(self) -> AdmissionStats:
        return AdmissionStats(self._running, self._waiting, self._refused)

    def _has_room(self, queries: int) -> bool:
        return self._running == 0 or self._running + queries <= self._max_running

    def _refuse_hopeless(self, queries: int, deadline: Deadline) -> None:
        expected_s = self._expected_s(queries)
        if expected_s * _CAUTION > deadline.remaining_s:
            raise self._refusal(
                f"{self._running} queries are running and {self._waiting} waiting, which takes about {expected_s:.2f} s, "
                f"the deadline leaves {deadline.remaining_s:.2f} s",
                expected_s,
            )

    def _expected_s(self, queries: int) -> float:
        """Until a call that comes now is answered, by Little's law."""
        return (self._running + self._waiting + queries) * self._seconds_per_query

    async def _wait(self, queries: int, deadline: Deadline) -> None:
        if self._waiting + queries > self._max_waiting:
            message = f"{self._waiting} queries are waiting, the bound is {self._max_waiting}"
            raise self._refusal(message, self._expected_s(queries))
        waiter = _Waiter(queries, deadline, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._waiting += queries
        try:
            async with asyncio.timeout(deadline.remaining_s):
                await waiter.admitted
        except BaseException as error:
            self._give_up(waiter)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("the deadline passed while the call waited to be admitted") from error
            raise

    def _give_up(self, waiter: _Waiter) -> None:
        admitted = waiter.admitted
        if waiter.is_queued:
            self._waiters.remove(waiter)
            self._dequeued(waiter)
        elif not admitted.cancelled() and admitted.exception() is None:  # admitted in the very same turn of the loop
            self._running -= waiter.queries
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters[0]
            # One that was cancelled or timed out in this very turn of the loop has not given up yet.
            is_gone = waiter.admitted.done()
            if not is_gone and not self._has_room(waiter.queries):
                return
            self._dequeued(self._waiters.popleft())
            if is_gone:
                continue
            needed_s = (self._running + waiter.queries) * self._seconds_per_query
            if self._running and needed_s > waiter.deadline.remaining_s:
                waiter.admitted.set_exception(self._refusal("the queue moved too slowly for the deadline", needed_s))
            else:
                self._running += waiter.queries
                waiter.admitted.set_result(None)

    def _dequeued(self, waiter: _Waiter) -> None:
        waiter.is_queued = False
        self._waiting -= waiter.queries

    def _learn(self, took_s: float) -> None:
        if self._running < self._crowd:
            return
        # Little's law: with `running` queries inside, one leaves every took / running seconds.
        seconds = took_s / self._running
        self._seconds_per_query += _COST_WEIGHT * (seconds - self._seconds_per_query)

    def _refusal(self, message: str, expected_s: float) -> ResourceExhausted:
        self._refused += 1
        _REFUSALS.inc()
        delay_s = min(max(expected_s, _MIN_RETRY_DELAY_S), _MAX_RETRY_DELAY_S)
        return ResourceExhausted(message, retry_delay_s=delay_s)
