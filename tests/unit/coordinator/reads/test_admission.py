"""Admission: room, order, refusal at once, deadlines, cancellation."""

import asyncio
import time

import pytest

from coordinator.admission import Admission
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
