"""Placement: distinct members per shard, loads as even as they can be."""

import pytest

from coordinator.placement import place, replicas_held
from kintsugi.errors import FailedPrecondition


def test_replicas_of_a_shard_stand_on_distinct_members():
    """Losing one member loses one replica of each shard at most."""
    for members in place(16, 3, {"a": 0, "b": 0, "c": 0, "d": 0}):
        assert len(set(members)) == 3


def test_loads_differ_by_one_at_most():
    """Replicas go where there are fewest."""
    load = dict.fromkeys("abcde", 0)
    for members in place(7, 2, load):
        for member in members:
            load[member] += 1
    assert max(load.values()) - min(load.values()) <= 1


def test_members_that_hold_less_are_filled_first():
    """A new shard server takes the new shards."""
    assert place(2, 1, {"a": 5, "b": 0}) == [("b",), ("b",)]


def test_too_few_members_are_refused_with_both_numbers():
    """The message names what is wanted and what there is."""
    with pytest.raises(FailedPrecondition, match=r"replicas is 2.*only 1") as caught:
        place(1, 2, {"a": 0})
    assert caught.value.field == "spec.replicas"


def test_held_replicas_are_counted_whatever_their_state(registry, kit):
    """Both members hold a replica of both shards, a third one none."""
    assert replicas_held(registry.view, [*kit.members, "new"]) == {"shard-a": 2, "shard-b": 2, "new": 0}
