"""What recent searches asked for, in order and within bounds."""

import numpy as np

from shard.heat import HALF_LIFE_S, Heat


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def rows(*numbers):
    return np.array(numbers, dtype=np.uint64)


def test_the_most_asked_for_comes_first():
    """Rows are ordered by how many searches asked for them, then by number."""
    heat = Heat(clock=Clock())
    for asked in ([5, 1], [5, 2], [9, 2, 5]):
        heat.observe(rows(*asked))
    assert heat.hottest().tolist() == [5, 2, 1, 9]


def test_old_searches_count_less():
    """Two searches of long ago weigh less than one of now."""
    clock = Clock()
    heat = Heat(clock=clock)
    heat.observe(rows(1))
    heat.observe(rows(1))
    clock.now = 2 * HALF_LIFE_S
    heat.observe(rows(2))
    assert heat.hottest().tolist() == [2, 1]


def test_counts_stay_finite_for_ever():
    """After years of traffic the order is still that of recent searches."""
    clock = Clock()
    heat = Heat(clock=clock)
    for turn in range(500):
        clock.now = turn * 30 * HALF_LIFE_S
        heat.observe(rows(turn % 7))
    assert heat.hottest().tolist()[:2] == [499 % 7, 498 % 7]


def test_the_coldest_are_forgotten_first():
    """However many rows are asked for, so many are remembered, and the hot ones among them."""
    heat = Heat(most=10, clock=Clock())
    for row in range(1000):
        heat.observe(rows(7, row + 100))
    assert len(heat) <= 20
    assert len(heat.hottest()) == 10
    assert heat.hottest()[0] == 7


def test_what_is_settled_is_forgotten():
    """Rows that lack nothing any more are not remembered."""
    heat = Heat(clock=Clock())
    heat.observe(rows(1, 2, 3))
    heat.forget([2, 17])
    assert heat.hottest().tolist() == [1, 3]


def test_nothing_observed_is_nothing_hot():
    """An empty search leaves no trace."""
    heat = Heat(clock=Clock())
    heat.observe(rows())
    assert len(heat.hottest()) == 0
