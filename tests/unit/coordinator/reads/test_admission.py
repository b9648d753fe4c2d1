"""Admission: room, order, refusal at once, deadlines, cancellation."""

import asyncio
import time

import pytest

from coordinator.admission import Admission, AdmissionStats
from coordinator.deadline import Deadline
from kintsugi.errors import DeadlineExceeded, ResourceExhausted


class ManualClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def after(seconds, clock=time.monotonic):
    return Deadline.after(seconds, clock)


async def test_waiters_enter_in_the_order_they_came():
    """Room goes to the one that waits longest, also past a larger one."""
    admission = Admission(max_running=2, max_waiting=10, clock=time.monotonic)
    entered = []

    async def call(name, queries):
        async with admission.admit(queries, after(5)):
            entered.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(call("a", 1), call("b", 1), call("large", 2), call("c", 1))
    assert entered == ["a", "b", "large", "c"]
    assert admission.stats().running == 0


async def test_a_call_larger_than_the_limit_runs_alone():
    """A batch above the limit is not locked out."""
    admission = Admission(max_running=2, max_waiting=10, clock=time.monotonic)
    async with admission.admit(50, after(1)):
        assert admission.stats().running == 50


async def test_waiting_ends_at_the_deadline_or_on_cancellation():
    """Neither leaves anything behind in the queue."""
    admission = Admission(max_running=1, max_waiting=10, clock=time.monotonic)
    async with admission.admit(1, after(5)):
        with pytest.raises(DeadlineExceeded):
            async with admission.admit(1, after(0.01)):
                raise AssertionError
        waiting = asyncio.create_task(admission.admit(1, after(5)).__aenter__())
        await asyncio.sleep(0)
        assert admission.stats().waiting == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert admission.stats().waiting == 0
    assert admission.stats().running == 0


async def test_a_hopeless_wait_is_refused_at_once():
    """When the queue is longer than the deadline, the refusal comes now and says when to try again."""
    clock = ManualClock()
    admission = Admission(max_running=1, max_waiting=100, clock=clock)
    for _ in range(50):
        async with admission.admit(1, after(60, clock)):
            clock.now += 1.0
    async with admission.admit(1, after(60, clock)):
        with pytest.raises(ResourceExhausted, match="the deadline leaves 0.50 s") as caught:
            async with admission.admit(1, after(0.5, clock)):
                raise AssertionError
    assert 0.5 < caught.value.retry_delay_s <= 5
    assert admission.stats().refused == 1


async def crowded(clock, seconds, running):
    """An admission that has learned: `running` queries at once take so many seconds together."""
    admission = Admission(max_running=running, max_waiting=1000, clock=clock)
    for _ in range(50):
        async with admission.admit(running, after(60, clock)):
            clock.now += seconds
    return admission


async def test_what_runs_already_counts_against_the_deadline():
    """A call that would be admitted at once would end too late all the same."""
    clock = ManualClock()
    admission = await crowded(clock, seconds=1.0, running=64)
    async with admission.admit(63, after(60, clock)):
        with pytest.raises(ResourceExhausted, match="63 queries are running and 0 waiting"):
            async with admission.admit(1, after(0.9, clock)):
                raise AssertionError
        async with admission.admit(1, after(2, clock)):
            pass


async def test_a_few_running_queries_say_nothing_of_many():
    """One slow search alone must not have the next ones refused: they run beside it."""
    clock = ManualClock()
    admission = Admission(max_running=256, max_waiting=10, clock=clock)
    for _ in range(50):
        async with admission.admit(1, after(60, clock)):
            clock.now += 5.0
    async with admission.admit(1, after(60, clock)), admission.admit(100, after(0.5, clock)):
        assert admission.stats().running == 101


async def test_a_waiter_whose_time_ran_out_in_the_queue_makes_room_for_those_behind_it():
    """It would run, end too late, and cost the next one its deadline as well."""
    clock = ManualClock()
    admission = await crowded(clock, seconds=1.0, running=2)
    entered = []

    async def call(name, seconds):
        async with admission.admit(1, after(seconds, clock)):
            entered.append(name)

    async with admission.admit(1, after(60, clock)):
        async with admission.admit(1, after(60, clock)):
            short, long = asyncio.create_task(call("short", 4.0)), asyncio.create_task(call("long", 60.0))
            await asyncio.sleep(0)
            assert admission.stats().waiting == 2
            clock.now += 3.5
        with pytest.raises(ResourceExhausted, match="too slowly"):
            await short
        await long
    assert entered == ["long"]
    assert admission.stats() == AdmissionStats(running=0, waiting=0, refused=1)


async def test_a_waiter_that_is_cancelled_as_its_turn_comes_leaves_nothing_behind():
    """Its future is done before it could take itself out of the queue."""
    admission = Admission(max_running=1, max_waiting=10, clock=time.monotonic)
    async with admission.admit(1, after(5)):
        gone, next_one = (asyncio.create_task(admission.admit(1, after(5)).__aenter__()) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
    await next_one
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert admission.stats() == AdmissionStats(running=1, waiting=0, refused=0)
