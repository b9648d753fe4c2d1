"""The state tables of replicas and index versions."""

import msgspec
import pytest

from kintsugi.errors import NotFound
from kintsugi.registry import index_versions, replicas
from kintsugi.registry.index_versions import IndexVersionEvent
from kintsugi.registry.records import (
    EpochStart,
    IndexVersion,
    IndexVersionState,
    LogState,
    ReplicaState,
    Shard,
)
from kintsugi.registry.replicas import ReplicaEvent
from kintsugi.registry.transitions import IllegalTransition

IN_SYNC, JOINING, OUT_OF_SYNC = ReplicaState.IN_SYNC, ReplicaState.JOINING, ReplicaState.OUT_OF_SYNC

REPLICA_OUTCOMES = {
    (IN_SYNC, ReplicaEvent.LEASE_LOST): OUT_OF_SYNC,
    (IN_SYNC, ReplicaEvent.DIVERGED): OUT_OF_SYNC,
    (IN_SYNC, ReplicaEvent.GIVEN_UP): OUT_OF_SYNC,
    (JOINING, ReplicaEvent.LEASE_LOST): OUT_OF_SYNC,
    (JOINING, ReplicaEvent.CATCHING_UP): JOINING,
    (JOINING, ReplicaEvent.CAUGHT_UP): IN_SYNC,
    (JOINING, ReplicaEvent.DIVERGED): OUT_OF_SYNC,
    (JOINING, ReplicaEvent.GIVEN_UP): OUT_OF_SYNC,
    (OUT_OF_SYNC, ReplicaEvent.CATCHING_UP): JOINING,
    (OUT_OF_SYNC, ReplicaEvent.DIVERGED): OUT_OF_SYNC,
    (OUT_OF_SYNC, ReplicaEvent.GIVEN_UP): OUT_OF_SYNC,
}
INDEX_OUTCOMES = {
    (IndexVersionState.BUILDING, IndexVersionEvent.BUILT): IndexVersionState.READY,
    (IndexVersionState.BUILDING, IndexVersionEvent.FAILED): IndexVersionState.RETIRED,
    (IndexVersionState.BUILDING, IndexVersionEvent.ABANDONED): IndexVersionState.RETIRED,
    (IndexVersionState.READY, IndexVersionEvent.SWAPPED_IN): IndexVersionState.SERVING,
    (IndexVersionState.SERVING, IndexVersionEvent.SWAPPED_OUT): IndexVersionState.RETIRED,
}
EVERY_PAIR = [
    (module, outcomes, state, event)
    for module, outcomes, states, events in (
        (replicas, REPLICA_OUTCOMES, ReplicaState, ReplicaEvent),
        (index_versions, INDEX_OUTCOMES, IndexVersionState, IndexVersionEvent),
    )
    for state in states
    for event in events
]


def shard(given_up=(), **states):
    return Shard("c", 0, (EpochStart(1, 0),), LogState.OPEN, states, given_up)


@pytest.mark.parametrize(("module", "outcomes", "state", "event"), EVERY_PAIR)
def test_every_state_and_event_has_the_promised_outcome(module, outcomes, state, event):
    """Each pair of state and event leads where the table says, and illegal ones raise and change nothing."""
    table = {key: dict(row) for key, row in module.TRANSITIONS.items()}
    wanted = outcomes.get((state, event))
    if wanted is None:
        with pytest.raises(IllegalTransition, match=event.value):
            module.next_state(state, event)
    else:
        assert module.next_state(state, event) is wanted
    assert table == module.TRANSITIONS


@pytest.mark.parametrize("lose", [replicas.lease_lost, replicas.diverged])
def test_the_last_in_sync_replica_never_leaves(lose):
    """Losing a replica takes it out of sync, except the last one in sync."""
    both = shard(a=IN_SYNC, b=IN_SYNC)
    left = lose(both, "a")
    assert left.replicas == {"a": OUT_OF_SYNC, "b": IN_SYNC}
    assert both.replicas == {"a": IN_SYNC, "b": IN_SYNC}
    assert lose(left, "b") is None
    assert lose(left, "a") is None
    assert lose(shard(a=IN_SYNC, b=JOINING), "a") is None
    assert lose(shard(a=IN_SYNC, b=JOINING), "b").replicas["b"] is OUT_OF_SYNC


@pytest.mark.parametrize("lose", [replicas.lease_lost, replicas.diverged])
def test_no_in_sync_replica_leaves_while_its_log_is_recovered(lose):
    """Recovery has to hear every replica that may hold the only copy of a write; one that only joins may leave."""
    recovering = msgspec.structs.replace(shard(a=IN_SYNC, b=IN_SYNC, c=JOINING), log_state=LogState.RECOVERING)
    assert lose(recovering, "a") is None
    assert lose(recovering, "c").replicas == {"a": IN_SYNC, "b": IN_SYNC, "c": OUT_OF_SYNC}


def test_a_replica_rejoins_by_catching_up():
    """An out-of-sync replica joins, catches up, and is then no longer given up."""
    joining = replicas.catching_up(shard(("a",), a=OUT_OF_SYNC, b=IN_SYNC), "a")
    assert joining.replicas["a"] is JOINING
    back = replicas.caught_up(joining, "a")
    assert back.replicas["a"] is IN_SYNC
    assert back.given_up == ()


def test_an_illegal_move_of_a_replica_raises():
    """A replica cannot be caught up without joining, and a member without a replica is not found."""
    with pytest.raises(IllegalTransition):
        replicas.caught_up(shard(a=OUT_OF_SYNC), "a")
    with pytest.raises(NotFound, match="no replica on z"):
        replicas.lease_lost(shard(a=IN_SYNC), "z")


def test_giving_up_frees_recovery_from_waiting():
    """Recovery awaits in-sync replicas that are not given up; giving up the last one leaves none to await."""
    first = replicas.given_up(shard(a=IN_SYNC, b=IN_SYNC), "a")
    assert first.given_up == ("a",)
    assert replicas.awaited(first) == ("b",)
    last = replicas.given_up(first, "b")
    assert last.replicas["b"] is IN_SYNC
    assert replicas.awaited(last) == ()


def test_without_anybody_in_sync_recovery_awaits_all_others():
    """When all in-sync replicas are given up, what is kept is what all others hold that were not given up as well."""
    lost = replicas.given_up(shard(a=IN_SYNC, b=OUT_OF_SYNC, c=JOINING, d=OUT_OF_SYNC), "a")
    assert replicas.awaited(lost) == ("b", "c", "d")
    assert replicas.awaited(replicas.given_up(lost, "d")) == ("b", "c")


def test_swap_retires_the_version_that_served_the_same_model():
    """The ready version serves, its predecessor of the same model retires, other models stay."""
    versions = [
        IndexVersion("c", 0, "a", 1, "old", "i8", IndexVersionState.SERVING),
        IndexVersion("c", 0, "a", 2, "old", "f32", IndexVersionState.READY),
        IndexVersion("c", 0, "a", 3, "new", "i8", IndexVersionState.SERVING),
    ]
    changed = {version.version: version.state for version in index_versions.swap(versions, 2)}
    assert changed == {2: IndexVersionState.SERVING, 1: IndexVersionState.RETIRED}
    with pytest.raises(IllegalTransition):
        index_versions.swap(versions, 3)
