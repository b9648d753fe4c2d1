"""Long work that gives way."""

import threading

import pytest

from kintsugi.errors import DeadlineExceeded, Unavailable
from shard.pace import Clocks, Pace


class Time:
    """A clock that naps move on, and a processor that the test keeps busy."""

    def __init__(self):
        self.now = self.busy = 0.0
        self.naps = []

    def nap(self, seconds):
        self.naps.append(seconds)
        self.now += seconds

    @property
    def clocks(self):
        return Clocks(lambda: self.now, lambda: self.busy, self.nap)


@pytest.mark.parametrize(("share", "rest"), [(0.5, 0.2), (0.1, 1.8)])
def test_work_rests_in_proportion(share, rest):
    """After 0.2 s of work, as long as makes it the share of one core that it may take."""
    time = Time()
    pace = Pace(share, threading.Event(), clocks=time.clocks)
    pace.step()
    assert not time.naps
    time.busy += 0.2
    pace.step()
    assert sum(time.naps) == pytest.approx(rest)
    assert max(time.naps) <= 0.05


def test_closing_ends_the_work_in_the_middle_of_a_rest():
    """Whoever closes the replica waits for one nap at most."""
    time, closing = Time(), threading.Event()
    clocks = Clocks(lambda: time.now, lambda: time.busy, lambda seconds: (time.nap(seconds), closing.set()))
    pace = Pace(0.1, closing, clocks=clocks)
    pace.step()
    time.busy += 10.0
    with pytest.raises(Unavailable, match="closing"):
        pace.step()
    assert len(time.naps) == 1


def test_nobody_waiting_ends_the_work():
    """A cancelled call leaves nothing running."""
    pace = Pace(0.5, threading.Event())
    pace.step()
    pace.stop()
    with pytest.raises(Unavailable, match="nobody"):
        pace.step()


def test_the_deadline_ends_the_work():
    """Late work is not finished."""
    time = Time()
    pace = Pace(0.5, threading.Event(), deadline=1.0, clocks=time.clocks)
    pace.step()
    time.now = 1.0
    with pytest.raises(DeadlineExceeded):
        pace.step()
