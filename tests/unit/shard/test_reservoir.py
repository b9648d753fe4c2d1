"""A fair draw of a window."""

from collections import Counter

import numpy as np

from shard.reservoir import Reservoir


def test_each_has_the_same_chance():
    """Whether they come one by one or together."""
    chosen = Counter()
    drawn = Reservoir(5, np.random.default_rng(1))
    for _ in range(2000):
        for number in range(10):
            drawn.observe(1, lambda place, number=number: number + place)
        drawn.observe(10, lambda place: 10 + place)
        taken = drawn.take()
        assert len(taken) == len(set(taken)) == 5
        chosen.update(taken)
    assert set(chosen) == set(range(20))
    assert all(400 < count < 600 for count in chosen.values())


def test_only_what_is_drawn_is_made():
    """Most of a long window costs nothing."""
    made = []
    drawn = Reservoir(4, np.random.default_rng(1))
    for _ in range(10_000):
        drawn.observe(1, made.append)
    assert len(made) < 100


def test_it_can_be_off():
    """Capacity 0."""
    drawn = Reservoir(0)
    drawn.observe(3, lambda place: place)
    assert drawn.take() == []
