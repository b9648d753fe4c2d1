"""The duty cycle of builds, on a clock that stands still unless told."""

import pytest

from shard.build_pace import SEARCHING_S, BuildPace


class ManualClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return ManualClock()


@pytest.mark.parametrize(("share", "rest"), [(1.0, 0.0), (0.5, 0.25), (0.25, 0.75), (0.1, 2.25)])
def test_work_and_rest_make_the_share(clock, share, rest):
    """A quarter of a second of work is that share of itself and the rest."""
    pace = BuildPace(share, clock)
    pace.searched()
    pace.worked(0.25)
    assert pace.rest_s() == pytest.approx(rest)
    clock.now += min(rest / 2, SEARCHING_S)
    assert pace.rest_s() == pytest.approx(rest - min(rest / 2, SEARCHING_S))


def test_nobody_rests_while_nobody_searches(clock):
    """What is owed counts again as soon as somebody does."""
    pace = BuildPace(0.1, clock)
    pace.worked(1.0)
    assert pace.rest_s() == 0
    pace.searched()
    assert pace.rest_s() == pytest.approx(9.0)
    clock.now += SEARCHING_S + 0.001
    assert pace.rest_s() == 0


def test_a_long_build_that_nobody_searched_beside_owes_no_more_than_its_last_step(clock):
    """The first search after ten minutes of steps does not stop the build for an hour."""
    pace = BuildPace(0.1, clock)
    for _ in range(600):
        clock.now += 1.0
        pace.worked(1.0)
    pace.searched()
    assert pace.rest_s() == pytest.approx(9.0)


def test_several_builds_share_one_share(clock):
    """The rests of two that worked at once add up, and end."""
    pace = BuildPace(0.5, clock)
    pace.searched()
    pace.worked(0.2)
    pace.worked(0.2)
    assert pace.rest_s() == pytest.approx(0.4)
    clock.now += 0.5
    pace.searched()
    assert pace.rest_s() == 0
    pace.worked(0.1)
    assert pace.rest_s() == pytest.approx(0.1)


def test_over_a_long_time_builds_take_their_share(clock):
    """Steps of any length, each begun when the rest is over: the part of time that is work is the share."""
    pace = BuildPace(0.3, clock)
    worked, began = 0.0, clock.now
    for number in range(200):
        step = 0.01 + 0.005 * (number % 7)
        clock.now += step
        pace.searched()
        pace.worked(step)
        worked += step
        while rest := pace.rest_s():
            clock.now += min(rest, 0.5)
            pace.searched()
    assert worked / (clock.now - began) == pytest.approx(0.3, rel=1e-6)
