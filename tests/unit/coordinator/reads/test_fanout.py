"""The fan-out alone, with tries that tests settle: who is asked, what is told, and that nothing is left running."""

import asyncio
import time
from collections import defaultdict

import pytest

from coordinator.deadline import Deadline
from coordinator.fanout import FanOut
from coordinator.load import HedgeSettings, ReplicaLoad
from coordinator.plan import ShardPlan, Target
from kintsugi.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StalePlan,
    Unavailable,
)
from kintsugi.rpc.errors import ANSWER_TOO_LARGE

A, B, C = (Target(name, f"{name}:1") for name in "abc")


class Tries:
    """Remembers who was asked. A try stays open unless its replica has an outcome here: an answer, an error, or an exception
    that asking itself raises."""

    def __init__(self, raises=(), **outcomes):
        self.asked = []
        self.open = {}
        self.was_asked = defaultdict(asyncio.Event)
        self._raises = raises
        self._outcomes = outcomes

    def __call__(self, shard, target, _deadline):
        self.asked.append(target.member)
        self.was_asked[target.member].set()
        if target.member in self._raises:
            raise RuntimeError(f"{target.member} cannot even be asked")
        future = self.open[target.member] = asyncio.get_running_loop().create_future()
        outcome = self._outcomes.get(target.member)
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        elif outcome is not None:
            future.set_result((shard.shard, outcome))
        return future


@pytest.fixture
def load():
    return ReplicaLoad(time.monotonic, HedgeSettings(first_delay_s=0.01, min_delay_s=0.001))


def shard(*targets, number=0):
    return ShardPlan(number, targets, None)


def after(seconds):
    return Deadline.after(seconds, time.monotonic)


async def gathered(load, tries, *shards, seconds=10.0):
    return await FanOut(load).gather(shards, tries, after(seconds))


def is_idle(load, *targets):
    """Whether no call is in flight: all are equal but for how long ago they were asked."""
    return all(load._of(target).in_flight == 0 for target in targets)


async def test_every_shard_is_asked_and_told(load):
    """Answers and failures by shard; no shards, no answers."""
    tries = Tries(a="fine", b=InvalidArgument("k", "is bad", "must be good"))
    told = await gathered(load, tries, shard(A), shard(B, number=1), shard(number=2))
    assert told.answers == {0: (0, "fine")}
    assert isinstance(told.failures[1], InvalidArgument)
    assert told.failures[2].reason == "NO_REPLICA"
    assert (await gathered(load, tries)).answers == {}
    assert is_idle(load, A, B)


@pytest.mark.parametrize(
    "error", [Unavailable("down"), NotFound("not here"), ResourceExhausted("full"), StalePlan("old", revision=7)]
)
async def test_the_next_replica_is_asked_at_once(load, error):
    """When another one may answer; who failed is asked last from then on, unless the plan was to blame."""
    tries = Tries(a=error, b="fine")
    assert (await gathered(load, tries, shard(A, B))).answers == {0: (0, "fine")}
    assert tries.asked == ["a", "b"]
    assert (load.order([A, B])[0] == A) == isinstance(error, StalePlan)
    assert is_idle(load, A, B)


@pytest.mark.parametrize(
    "error", [InvalidArgument("k", "is bad", "must be good"), ResourceExhausted("large", reason=ANSWER_TOO_LARGE)]
)
async def test_what_no_other_replica_can_heal_is_final(load, error):
    """The request's own faults, and answers that are too large everywhere."""
    tries = Tries(a=error, b="fine")
    assert (await gathered(load, tries, shard(A, B))).failures == {0: error}
    assert tries.asked == ["a"]


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((Unavailable("down"), StalePlan("old", revision=7)), StalePlan),
        ((ResourceExhausted("full", retry_delay_s=2.0), ResourceExhausted("full")), ResourceExhausted),
        ((NotFound("not here"), NotFound("nor here")), NotFound),
        ((ResourceExhausted("full"), Unavailable("down")), Unavailable),
    ],
)
async def test_all_that_replicas_said_is_told(load, errors, kind):
    """As the kindest of their errors."""
    failure = (await gathered(load, Tries(a=errors[0], b=errors[1]), shard(A, B))).failures[0]
    assert type(failure) is kind
    assert failure.message == f"a: {errors[0].message}, b: {errors[1].message}"


async def test_a_slow_replica_gets_a_competitor(load):
    """The first answer wins; the other try is cancelled, and counts as a failure when it was silent."""
    tries = Tries(b="fine")
    assert (await gathered(load, tries, shard(A, B))).answers == {0: (0, "fine")}
    assert tries.asked == ["a", "b"]
    assert tries.open["a"].cancelled()
    assert load.order([A, B])[0] == B
    assert is_idle(load, A, B)


async def test_a_failed_competitor_leaves_the_first_one_running():
    """And the third is asked when the first fails as well, without a second try being left."""
    load = ReplicaLoad(time.monotonic, HedgeSettings(share=0.0, burst=1.0, first_delay_s=0.01, max_delay_s=60.0))
    tries = Tries(b=Unavailable("down"), c="fine")
    running = asyncio.create_task(gathered(load, tries, shard(A, B, C)))
    await tries.was_asked["b"].wait()
    tries.open["a"].set_exception(Unavailable("down as well"))
    assert (await running).answers == {0: (0, "fine")}
    assert tries.asked == ["a", "b", "c"]
    assert is_idle(load, A, B, C)


async def test_the_deadline_ends_what_still_runs(load):
    """Named by the replicas that did not answer; other shards keep their answers."""
    tries = Tries(b="fine")
    told = await gathered(load, tries, shard(A), shard(B, number=1), seconds=0.02)
    assert told.answers == {1: (1, "fine")}
    assert isinstance(told.failures[0], DeadlineExceeded)
    assert told.failures[0].message == "a: no answer within the deadline"
    assert tries.open["a"].cancelled()
    assert is_idle(load, A, B)


async def test_whoever_gives_up_leaves_nothing_running(load):
    """Cancellation reaches all tries of all shards."""
    tries = Tries()
    running = asyncio.create_task(gathered(load, tries, shard(A), shard(B, number=1)))
    await tries.was_asked["b"].wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(future.cancelled() for future in tries.open.values())
    assert is_idle(load, A, B)


@pytest.mark.parametrize(
    "tries", [Tries(a=RuntimeError("a defect")), Tries(raises="a"), Tries(raises="b", a=NotFound("no"))]
)
async def test_a_defect_is_raised(load, tries):
    """At once, whether a try ends with it or cannot even begin; the other shards are given up."""
    with pytest.raises(RuntimeError):
        await gathered(load, tries, shard(A, B), shard(C, number=1))
    assert all(future.done() for future in tries.open.values())
    assert is_idle(load, A, B, C)
