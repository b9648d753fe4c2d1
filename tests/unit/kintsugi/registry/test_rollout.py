"""Whose turn it is to build, from the records of all index versions."""

import pytest

from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.records import (
    Collection,
    EpochStart,
    IndexVersion,
    IndexVersionState,
    LogState,
    Model,
    ReplicaState,
    Shard,
    Snapshot,
    View,
    encode_record,
    field_of,
)
from kintsugi.registry.rollout import is_alone, why_wait

BUILDING, READY, SERVING, RETIRED = IndexVersionState
IN_SYNC, OUT = ReplicaState.IN_SYNC, ReplicaState.OUT_OF_SYNC
COLLECTION = Collection("c", "c", 2, 3, Metric.L2, StoredType.F32, (Model(1, "m", 4, Metric.L2),), "m", 1)
ALL = {"a", "b", "x"}


def view(replicas, **states):
    """The states of one version of each member; `other_x` is of the other shard."""
    placed = dict.fromkeys(replicas, IN_SYNC)
    shards = [Shard("c", number, (EpochStart(1, 0),), LogState.OPEN, placed) for number in (0, 1)]
    records = [COLLECTION, *shards]
    for name, state in states.items():
        shard = 1 if name.startswith("other_") else 0
        records.append(IndexVersion("c", shard, name.removeprefix("other_"), 7, "m", "i8", state))
    return View(Snapshot("cluster", 1, 1, "d", {field_of(record): encode_record(record) for record in records}))


@pytest.mark.parametrize(
    ("states", "alive", "why"),
    [
        ({}, ALL, ""),
        ({"a": SERVING, "b": SERVING, "x": RETIRED}, ALL, ""),
        ({"b": BUILDING}, ALL, "version 7 of the replica on b is building"),
        ({"b": READY}, ALL, "version 7 of the replica on b is ready"),
        # The dead are waited for by nobody; a claim of one's own, left by an unknown outcome, is no other's.
        ({"b": BUILDING}, {"a", "x"}, ""),
        ({"a": BUILDING}, ALL, ""),
        # Another shard rolls by itself, and a member without a replica of this one does not count.
        ({"other_b": BUILDING}, ALL, ""),
        ({"y": BUILDING}, {*ALL, "y"}, ""),
    ],
)
def test_one_living_replica_of_a_shard_builds_at_a_time(states, alive, why):
    """Another's version in the making is waited for while its member lives."""
    assert why_wait(view("abx", **states), alive, "a", "c", 0) == why


def test_what_the_registry_does_not_place_here_does_not_build():
    """A deleted collection, or a replica that is not one's own."""
    assert "no such replica" in why_wait(view("ab"), ALL, "x", "c", 0)
    assert "no such replica" in why_wait(view("ab"), ALL, "a", "gone", 0)


def test_a_replica_is_alone_when_its_shard_has_no_other():
    """Whatever the state of the others."""
    assert is_alone(view("a"), "a", "c", 0)
    assert not is_alone(view("ab"), "a", "c", 0)
    assert not is_alone(view("a"), "a", "gone", 0)
