"""Who is asked first, and what failures and silence make of it."""

import asyncio
from contextlib import contextmanager

from coordinator.load import HedgeSettings, ReplicaLoad
from coordinator.plan import Target
from coordinator.reading import ReadSettings
from kintsugi.v1 import search_pb2

A, B = Target("a", "a:1"), Target("b", "b:1")


class ManualClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@contextmanager
def asking(load, target):
    load.asked(target)
    try:
        yield
    finally:
        load.left(target)


def test_the_least_loaded_replica_comes_first():
    """Calls in flight decide; equal ones take turns."""
    load = ReplicaLoad(ManualClock())
    with asking(load, A):
        assert load.order([A, B]) == [B, A]
        with asking(load, B):
            assert load.order([A, B]) == [A, B]
    with asking(load, A):
        pass
    assert load.order([A, B]) == [B, A]


def test_a_failed_replica_is_avoided_longer_each_time_and_probed_by_one():
    """After the penalty a single call probes it; only a success ends the avoidance."""
    clock = ManualClock()
    load = ReplicaLoad(clock)
    load.failed(A)
    load.failed(A)
    clock.now += 0.3
    with asking(load, B):
        assert load.order([A, B]) == [B, A]
        clock.now += 0.2
        assert load.order([A, B]) == [A, B]
        with asking(load, A):
            pass
        assert load.order([A, B]) == [B, A]
        load.succeeded(A, 0.01)
        assert load.order([A, B]) == [A, B]


def test_the_delay_of_a_second_try_follows_the_replicas_answers():
    """The slowest twentieth of recent answers sets it, within bounds."""
    load = ReplicaLoad(ManualClock(), HedgeSettings(latency_factor=2, first_delay_s=0.1, max_delay_s=1))
    assert load.second_try_delay_s(A) == 0.1
    for _ in range(64):
        load.succeeded(A, 0.03)
    assert load.second_try_delay_s(A) == 0.06
    for _ in range(64):
        load.succeeded(A, 9.0)
    assert load.second_try_delay_s(A) == 1


def test_a_second_try_does_not_wait_for_a_replica_that_is_always_slow():
    """Its own answers would set a delay as long as they take; a replica that is avoided says nothing."""
    load = ReplicaLoad(ManualClock(), HedgeSettings(latency_factor=2, max_delay_s=1))
    for _ in range(64):
        load.succeeded(A, 0.2)
        load.succeeded(B, 0.03)
    assert load.second_try_delay_s(A, [B]) == load.second_try_delay_s(B, [A]) == 0.06
    load.failed(B)
    assert load.second_try_delay_s(A, [B]) == 0.4


def test_a_slow_replica_is_asked_last_however_many_calls_others_have():
    """A call in flight more is nothing against an answer that takes 200 ms."""
    load = ReplicaLoad(ManualClock())
    for _ in range(5):
        load.succeeded(A, 0.2)
        load.succeeded(B, 0.003)
    with asking(load, A):
        pass
    with asking(load, B), asking(load, B), asking(load, B):
        assert load.order([A, B]) == [B, A]


def test_a_single_late_answer_does_not_make_a_replica_slow():
    """Calls in flight go on to decide: a pause of a garbage collector is over when it is seen."""
    load = ReplicaLoad(ManualClock())
    for took_s in (0.003, 0.003, 0.003, 0.2, 0.2):
        load.succeeded(A, took_s)
        load.succeeded(B, 0.003)
    with asking(load, B):
        assert load.order([A, B]) == [A, B]


def test_a_replica_is_not_slow_for_less_than_a_second_try_waits():
    """Ten times half a millisecond harms nobody, and load should spread."""
    load = ReplicaLoad(ManualClock(), HedgeSettings(min_delay_s=0.01))
    for _ in range(5):
        load.succeeded(A, 0.005)
        load.succeeded(B, 0.0005)
    with asking(load, B):
        assert load.order([A, B]) == [A, B]


def test_a_slow_replica_is_probed_now_and_then_and_trusted_when_it_is_well():
    """One call at a time, paid by a second try; the median of its answers decides."""
    clock = ManualClock()
    load = ReplicaLoad(clock)
    for _ in range(5):
        load.succeeded(A, 0.2)
        load.succeeded(B, 0.003)
    for _ in range(3):
        with asking(load, B):
            clock.now += 2
            assert load.order([A, B]) == [A, B]
            with asking(load, A):
                assert load.order([A, B]) == [B, A]
            assert load.order([A, B]) == [B, A]
        load.succeeded(A, 0.003)
    with asking(load, B):
        assert load.order([A, B]) == [A, B]


def test_a_slow_replica_is_not_probed_without_a_second_try():
    """The probe would wait for the slow answer."""
    clock = ManualClock()
    load = ReplicaLoad(clock, HedgeSettings(burst=1))
    for _ in range(5):
        load.succeeded(A, 0.2)
        load.succeeded(B, 0.003)
    assert load.may_compete(B)
    clock.now += 2
    assert load.order([A, B]) == [B, A]
    for _ in range(20):
        load.earn_second_try()
    assert load.order([A, B]) == [A, B]


def test_second_tries_are_a_share_of_first_ones():
    """Ten first tries at a share of a fifth allow two second ones."""
    clock = ManualClock()
    load = ReplicaLoad(clock, HedgeSettings(share=0.2, burst=1))
    assert load.may_compete(A)
    assert not load.may_compete(A)
    granted = 0
    for _ in range(10):
        load.earn_second_try()
        granted += load.may_compete(A)
    assert granted in (1, 2)


def test_whoever_is_outrun_is_as_slow_as_it_was_waited_for():
    """And has not failed for that, as long as it answers now and then."""
    clock = ManualClock()
    load = ReplicaLoad(clock)
    for _ in range(5):
        load.succeeded(A, 0.003)
        load.succeeded(B, 0.003)
    with asking(load, B):
        for _ in range(2):
            with asking(load, A):
                load.outrun(A, 0.2)
        assert load.order([A, B]) == [A, B]
        with asking(load, A):
            load.outrun(A, 0.2)
        assert load.order([A, B]) == [B, A]


def test_a_replica_that_answers_nobody_has_failed():
    """Once it has been silent for a second, counted from the first call that it did not answer."""
    clock = ManualClock()
    load = ReplicaLoad(clock, HedgeSettings(burst=0, max_delay_s=1))
    for _ in range(3):
        with asking(load, A):
            clock.now += 0.4
            assert load.may_compete(A) == (clock.now > 101)
            load.outrun(A, None)
        with asking(load, B):
            is_avoided = load.order([A, B]) == [B, A]
        assert is_avoided == (clock.now > 101)


def test_replicas_that_both_become_slower_go_on_sharing_the_load():
    """One call after the other, of so many more queries than before that each gets a second try, as long as one is allowed."""
    clock = ManualClock()
    load = ReplicaLoad(clock)
    for _ in range(64):
        load.succeeded(A, 0.01)
        load.succeeded(B, 0.01)
    asked = {A: 0, B: 0}
    for _ in range(200):
        load.earn_second_try()
        first, second = load.order([A, B])
        asked[first] += 1
        delay_s = load.second_try_delay_s(first, [second])
        with asking(load, first):
            if delay_s < 0.05 and load.may_compete(first):
                with asking(load, second):
                    clock.now += 0.06
                load.succeeded(second, 0.06 - delay_s)
                load.outrun(first, 0.06)
                continue
            clock.now += 0.05
        load.succeeded(first, 0.05)
    assert min(asked.values()) > 80


async def test_a_server_that_stops_answering_fails_no_search(world, context, make_documents):
    """Half of the replicas go silent under load: every search is answered, though second tries are bounded."""
    await world.start([["a", "b"]])
    world.put(make_documents(10))
    hedging = HedgeSettings(share=0.01, burst=1, first_delay_s=0.02, max_delay_s=0.3)
    service = world.reading(ReadSettings(hedging=hedging)).search_service
    vector = search_pb2.QueryVector(values=search_pb2.FloatList(values=[1, 0, 0, 0]))
    request = search_pb2.SearchRequest(collection="docs", vectors=[vector])
    world.replica("a", 0).answering.clear()

    async def caller():
        for _ in range(10):
            assert len((await service.Search(request, context(3))).hits) == 10

    started = asyncio.get_running_loop().time()
    await asyncio.gather(*[caller() for _ in range(32)])
    assert asyncio.get_running_loop().time() - started < 3
