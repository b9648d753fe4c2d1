"""Where a replica stands towards the log of its shard when the two do not agree. Pure.

Each fault that comparing them can find means one standing, and each standing one way on (replay.py, replica.py).
"""

from enum import Enum, auto

from kintsugi.log.faults import LogBehind, LogFault, LogForked, LogGap, LogMissing, LogMoved, LogRestoring


class PeerHoldsMore(LogFault):
    """An in-sync peer holds what the log does not."""


class EpochRefused(LogFault):
    """The log is open in an epoch that this replica has promised to ignore."""


class Standing(Enum):
    # The log is of a later epoch or incarnation than the registry we know says: look again later.
    UNSETTLED = auto()
    # The log is gone, went back to an earlier epoch or into a restoration that was over, lacks what an in-sync peer
    # holds, or is open in an epoch that no recovery of ours would open: whoever finds it, it must be rebuilt.
    LOG_LOST = auto()
    # The log ends before what the replica holds, or holds another history.
    DIFFERENT = auto()
    # The log was trimmed beyond the replica: it needs a copy from a peer.
    BEHIND = auto()


_STANDINGS: dict[type[LogFault], Standing] = {
    LogMissing: Standing.LOG_LOST,
    PeerHoldsMore: Standing.LOG_LOST,
    # A recovery that came too late, or knew of more recoveries than the registry does, asked for the promise.
    EpochRefused: Standing.LOG_LOST,
    # It was compared because the registry called it open under this very epoch, which recovery does only at its end.
    LogRestoring: Standing.LOG_LOST,
    LogBehind: Standing.DIFFERENT,
    LogForked: Standing.DIFFERENT,
    LogGap: Standing.BEHIND,
}


def standing_of(fault: LogFault, *, incarnation: int, epoch: int) -> Standing | None:
    """`incarnation` and `epoch` are those that the registry says are open. None when the fault is none of the log."""
    if isinstance(fault, LogMoved):
        found = (incarnation if fault.incarnation is None else fault.incarnation, fault.epoch)
        return Standing.LOG_LOST if found < (incarnation, epoch) else Standing.UNSETTLED
    return _STANDINGS.get(type(fault))


class Way(Enum):
    """How a replica goes on."""

    # Refresh the registry, judge again.
    WAIT = auto()
    # Have the log rebuilt from the in-sync replicas.
    RECOVER = auto()
    # Copy from a peer.
    COPY = auto()
    # Save what only this replica holds to a file, then copy from a peer.
    SAVE_AND_COPY = auto()


def way_on(standing: Standing, *, in_sync: bool) -> Way:
    """An in-sync replica speaks for the shard: what it holds must not get lost, so the log is rebuilt. Another one
    gives way to the log, or its stale tail would have the log rebuilt for ever.

    A replica that the log was trimmed beyond once held more: its disk went back, or is new. It never speaks for the
    shard by itself. Without a peer to copy from it fails, until its disk returns or an operator accepts the loss."""
    if standing is Standing.UNSETTLED:
        return Way.WAIT
    if standing is Standing.LOG_LOST:
        return Way.RECOVER
    if standing is Standing.BEHIND:
        return Way.COPY
    return Way.RECOVER if in_sync else Way.SAVE_AND_COPY
