"""Versions beside the one that serves: what is wanted, whose turn it is, the pace, and what was refused."""

import numpy as np
import pytest

from kintsugi.ann.spec import parse_name
from kintsugi.durable import DISK
from kintsugi.metrics import Metric
from shard.build_pace import BuildPace
from shard.indexer import IndexerSettings
from shard.rebuild_policy import RebuildSettings
from shard.rebuilder import Outside, Wanted
from shard.refusals import Refusal, Refusals

SETTINGS = IndexerSettings(rebuild=RebuildSettings(calibrate_at=5000, fit_at=40, rebuild_at=5000))


def vectors(count, dimension=16, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def nearly_alike(count, seed=1):
    """Two far clusters of vectors that differ within them by less than int8 can tell."""
    spread = vectors(count, 8, seed) * 0.01
    spread[:, 0] += np.where(np.arange(count) % 2, 1000, -1000)
    return spread


class Line:
    """A turn that is granted when the test says so."""

    def __init__(self, *, open_=False):
        self.is_open = open_
        self.waits_for = "the test"
        self.asked = []
        self.withdrawn = 0
        self.wake = lambda: None

    def ask(self, version, encoding, wake):
        self.asked.append((version, encoding))
        self.wake = wake
        return self.is_open

    def withdraw(self):
        self.withdrawn += 1

    def grant(self):
        self.is_open = True
        self.wake()


def wanted(name, requests=1, oversampling=None):
    spec = parse_name(name)
    return Wanted(spec if oversampling is None else type(spec)(spec.kind, oversampling=oversampling), requests)


def recorded(replica, **outside):
    return Outside(lambda number, encoding, event: replica.events.append((number, encoding, str(event))), **outside)


@pytest.fixture
def filled(open_replica):
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(200))))
    return replica


async def test_a_changed_wish_is_followed_without_reopening(filled, eventually):
    """From one encoding to the next and back, each settled when it serves, numbered onwards."""
    async with filled.serving(SETTINGS, wanted=wanted("f32", 0)) as (indexer, _):
        for number, name in enumerate(("i8", "f16", "i8"), start=1):
            indexer.want(wanted(name, number))
            await eventually(lambda number=number: indexer.rebuilder.settled_requests == number)
            assert (indexer.serving.encoding, indexer.serving.number) == (name, number + 1)
            assert indexer.rebuilder.last_plan.reason.startswith(f"{name} is wanted")


async def test_an_oversampling_is_taken_over_without_a_build(filled, eventually):
    """From the next search on; the encoding's own when none is wanted any more."""
    async with filled.serving(SETTINGS, wanted=wanted("i8", 0)) as (indexer, _):
        own, serving = indexer.serving.index.oversampling, indexer.serving
        indexer.want(wanted("i8", 1, oversampling=17.0))
        await eventually(lambda: indexer.rebuilder.settled_requests == 1)
        assert serving.index.oversampling == 17.0
        indexer.want(wanted("i8", 2))
        await eventually(lambda: indexer.rebuilder.settled_requests == 2)
        assert serving.index.oversampling == own
        assert indexer.serving is serving


async def test_nothing_is_begun_before_the_turn(filled, eventually):
    """The first version asks nobody; the next one is asked for under the number that it will have, and told as waiting."""
    line = Line()
    outside = recorded(filled, turn=line)
    async with filled.serving(SETTINGS, wanted=wanted("f32", 0), outside=outside) as (indexer, _):
        assert line.asked == []
        filled.events.clear()
        indexer.want(wanted("i8"))
        await eventually(lambda: line.asked)
        assert indexer.rebuilder.waits_for == "waits to build i8: the test"
        await filled.caught_up(indexer)
        assert filled.events == []
        line.grant()
        await eventually(lambda: indexer.rebuilder.settled_requests == 1)
        assert [event[2] for event in filled.events] == ["begun", "built", "swapped-in"]
        assert set(line.asked) == {(2, "i8")}
        assert indexer.rebuilder.waits_for == ""


async def test_who_waits_for_what_is_no_longer_wanted_leaves_the_line(filled, eventually):
    """And one who waits for something else keeps its number."""
    line = Line()
    async with filled.serving(SETTINGS, wanted=wanted("f32", 0), outside=recorded(filled, turn=line)) as (indexer, _):
        indexer.want(wanted("i8", 1))
        await eventually(lambda: line.asked)
        indexer.want(wanted("f16", 2))
        await eventually(lambda: line.asked[-1] == (2, "f16"))
        indexer.want(wanted("f32", 3))
        await eventually(lambda: indexer.rebuilder.settled_requests == 3)
        assert line.withdrawn == 1
        assert indexer.serving.number == 1


async def test_a_build_that_is_no_longer_wanted_is_given_up(filled, eventually):
    """It is retired, and what is wanted now is built, or kept."""
    resting = BuildPace(0.01)
    outside = recorded(filled, pace=resting)
    async with filled.serving(SETTINGS, wanted=wanted("f32", 0), outside=outside) as (indexer, _):
        resting.searched()
        resting.worked(1000.0)  # nothing goes on while somebody searches
        indexer.want(wanted("i8", 1))
        await eventually(lambda: resting.searched() or indexer.rebuilder.build)
        indexer.want(wanted("f32", 2))
        await eventually(lambda: indexer.rebuilder.settled_requests == 2)
        assert filled.events[-1] == (2, "i8", "abandoned")
        assert (indexer.rebuilder.build, indexer.serving.number) == (None, 1)


async def test_a_resting_build_delays_no_write(filled, eventually):
    """While a build rests for ever, writes are followed as they come; when the searches end it goes on."""
    now = [0.0]
    pace = BuildPace(0.01, lambda: now[0])
    async with filled.serving(SETTINGS, wanted=wanted("f32", 0), outside=recorded(filled, pace=pace)) as (indexer, _):
        pace.searched()
        pace.worked(1e6)
        indexer.want(wanted("i8"))
        await eventually(lambda: indexer.rebuilder.build is not None)
        for place in range(20):
            filled.put({1000 + place: vectors(1, seed=place)[0]})
            await filled.caught_up(indexer)
        assert indexer.serving.encoding == "f32"
        now[0] += 100.0
        await eventually(lambda: indexer.serving.encoding == "i8")
        assert len(indexer.serving.index) == 220


async def test_a_refused_encoding_is_tried_again_when_asked_for_or_when_the_data_changed(open_replica, eventually):
    """Not after a restart, nor after a few writes. The reason is kept."""
    replica = open_replica(8, Metric.L2)
    replica.put(dict(enumerate(nearly_alike(300))))
    settings = IndexerSettings(rebuild=RebuildSettings(calibrate_at=5000, fit_at=40, rebuild_at=60))

    def refused():
        return [event for event in replica.events if event[2] == "failed"]

    async with replica.serving(settings, wanted=wanted("f32", 0)) as (indexer, _):
        indexer.want(wanted("i8", 1))
        await eventually(lambda: indexer.rebuilder.settled_requests == 1)
        assert len(refused()) == 1
        reason = indexer.rebuilder.refusals["i8"].reason
        assert reason.startswith("recall of i8 is 0.")
        assert indexer.serving.encoding == "f32"
    async with replica.serving(settings, wanted=wanted("i8", 1)) as (indexer, _):
        replica.put(dict(enumerate(nearly_alike(20, seed=3), start=1000)))
        await replica.caught_up(indexer)
        await eventually(lambda: indexer.rebuilder.settled_requests == 1)
        assert len(refused()) == 1
        assert indexer.rebuilder.refusals["i8"].reason == reason
        indexer.want(wanted("i8", 2))
        await eventually(lambda: indexer.rebuilder.settled_requests == 2)
        assert len(refused()) == 2
        replica.put(dict(enumerate(nearly_alike(330, seed=4), start=2000)))
        await replica.caught_up(indexer)
        await eventually(lambda: len(refused()) == 3)


@pytest.mark.parametrize("content", [b"", b"{", b'{"i8": 3}', b"\xff"])
def test_a_damaged_file_of_refusals_is_no_refusal(tmp_path, content):
    """What cannot be read is tried again."""
    (tmp_path / "refused.json").write_bytes(content)
    refusals = Refusals(tmp_path, DISK)
    assert refusals.present == {}
    refusals.add("i8", Refusal(1, "why", 10, 2))
    assert Refusals(tmp_path, DISK).present == {"i8": Refusal(1, "why", 10, 2)}


def test_refusals_end_by_position_request_or_success(tmp_path):
    """Each by its own."""
    refusals = Refusals(tmp_path, DISK)
    for name, until_seq, requests in (("i8", 10, 2), ("binary", 20, 2), ("f16", 30, 5), ("e4m3", 30, 5)):
        refusals.add(name, Refusal(1, "why", until_seq, requests))
    refusals.forget_old(9, 2)
    assert set(refusals.present) == {"i8", "binary", "f16", "e4m3"}
    refusals.forget_old(10, 2)
    assert set(refusals.present) == {"binary", "f16", "e4m3"}
    refusals.forget_old(10, 3)
    refusals.remove("f16")
    assert set(refusals.present) == {"e4m3"}
