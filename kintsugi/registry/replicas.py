"""How far a replica may be trusted: the states' transitions, and what they do to a shard's record. Pure.

Guarantees that no transition takes the last in-sync replica out of a shard, nor any in-sync one while the shard's log is
being recovered: it may hold the only copy of acknowledged writes, and who accepts their loss says so by giving the
replica up (`kintsugi recover --accept-loss`).
"""

from enum import StrEnum

import msgspec

from kintsugi.errors import NotFound
from kintsugi.registry.records import LogState, ReplicaState, Shard
from kintsugi.registry.transitions import step


class ReplicaEvent(StrEnum):
    # Its member held no lease for the allowed time.
    LEASE_LOST = "lease-lost"
    # It starts to copy from a peer or to catch up with the log.
    CATCHING_UP = "catching-up"
    # It reached the head of the log.
    CAUGHT_UP = "caught-up"
    # Its history is not the log's, or its data is corrupt or gone.
    DIVERGED = "diverged"
    # An operator accepted the loss of what only it holds.
    GIVEN_UP = "given-up"


TRANSITIONS: dict[ReplicaState, dict[ReplicaEvent, ReplicaState]] = {
    ReplicaState.IN_SYNC: {
        ReplicaEvent.LEASE_LOST: ReplicaState.OUT_OF_SYNC,
        ReplicaEvent.DIVERGED: ReplicaState.OUT_OF_SYNC,
        ReplicaEvent.GIVEN_UP: ReplicaState.OUT_OF_SYNC,
    },
    ReplicaState.JOINING: {
        ReplicaEvent.LEASE_LOST: ReplicaState.OUT_OF_SYNC,
        # Starting over, after a restart or because the log was trimmed past it.
        ReplicaEvent.CATCHING_UP: ReplicaState.JOINING,
        ReplicaEvent.CAUGHT_UP: ReplicaState.IN_SYNC,
        ReplicaEvent.DIVERGED: ReplicaState.OUT_OF_SYNC,
        ReplicaEvent.GIVEN_UP: ReplicaState.OUT_OF_SYNC,
    },
    ReplicaState.OUT_OF_SYNC: {
        ReplicaEvent.CATCHING_UP: ReplicaState.JOINING,
        ReplicaEvent.DIVERGED: ReplicaState.OUT_OF_SYNC,
        ReplicaEvent.GIVEN_UP: ReplicaState.OUT_OF_SYNC,
    },
}


def next_state(state: ReplicaState, event: ReplicaEvent) -> ReplicaState:
    return step(TRANSITIONS, state, event, "a replica")


def is_last_in_sync(shard: Shard, member: str) -> bool:
    return shard.in_sync == (member,)


def must_stay(shard: Shard, member: str) -> bool:
    """Whether the member's replica is in sync and may not leave now: it is the last one, or recovery has to hear it."""
    recovering = shard.log_state is LogState.RECOVERING
    return member in shard.in_sync and (recovering or is_last_in_sync(shard, member))


def awaited(shard: Shard) -> tuple[str, ...]:
    """The members whose replicas recovery must hear before it rebuilds the log: those in sync that were not given up.
    When all of them were, all others: the operator was told how much these hold."""
    in_sync = tuple(member for member in shard.in_sync if member not in shard.given_up)
    return in_sync or tuple(sorted(set(shard.replicas) - set(shard.given_up)))


def lease_lost(shard: Shard, member: str) -> Shard | None:
    """The shard without the member's replica in sync. None when there is nothing to do: the replica is out of sync
    already, or it must stay."""
    if _state(shard, member) is ReplicaState.OUT_OF_SYNC or must_stay(shard, member):
        return None
    return _moved(shard, member, ReplicaEvent.LEASE_LOST)


def diverged(shard: Shard, member: str) -> Shard | None:
    """The shard with the member's replica out of sync. None when it is already, or must stay."""
    if _state(shard, member) is ReplicaState.OUT_OF_SYNC or must_stay(shard, member):
        return None
    return _moved(shard, member, ReplicaEvent.DIVERGED)


def catching_up(shard: Shard, member: str) -> Shard:
    """The shard with the member's replica joining. IllegalTransition when the replica is in sync."""
    return _moved(shard, member, ReplicaEvent.CATCHING_UP)


def caught_up(shard: Shard, member: str) -> Shard:
    """The shard with the member's replica in sync and no longer given up. IllegalTransition when it was not joining."""
    given_up = tuple(other for other in shard.given_up if other != member)
    return msgspec.structs.replace(_moved(shard, member, ReplicaEvent.CAUGHT_UP), given_up=given_up)


def given_up(shard: Shard, member: str) -> Shard:
    """The shard with the member listed as given up, and its replica out of sync unless it is the last one in sync:
    that one keeps its state, and `awaited` becomes empty."""
    listed = tuple(sorted({*shard.given_up, member}))
    after = shard if is_last_in_sync(shard, member) else _moved(shard, member, ReplicaEvent.GIVEN_UP)
    return msgspec.structs.replace(after, given_up=listed)


def _moved(shard: Shard, member: str, event: ReplicaEvent) -> Shard:
    state = next_state(_state(shard, member), event)
    return msgspec.structs.replace(shard, replicas={**shard.replicas, member: state})


def _state(shard: Shard, member: str) -> ReplicaState:
    state = shard.replicas.get(member)
    if state is None:
        raise NotFound(f"shard {shard.collection_uid}/{shard.shard} has no replica on {member}")
    return state
