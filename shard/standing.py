"""Where a replica stands towards the log of its shard when the two do not agree. Pure.

Each fault that comparing them can find means one standing, and each standing one way on (replay.py, replica.py).
"""

from enum import Enum, auto

from kintsugi.log.faults import LogBehind, LogFault, LogForked, LogGap, LogMissing, LogMoved, LogRestoring


class Standing(Enum):
    # The log is of another epoch or incarnation than the registry says, or is being rebuilt: look again later.
    UNSETTLED = auto()
    # The log ends before what the replica or an in-sync peer holds, or is gone: it must be rebuilt.
    LOG_LOST = auto()
    # The log holds another history than the replica or an in-sync peer.
    FORKED = auto()
    # The log was trimmed beyond the replica: it needs a copy from a peer.
    BEHIND = auto()


_STANDINGS: dict[type[LogFault], Standing] = {
    LogMoved: Standing.UNSETTLED,
    LogRestoring: Standing.UNSETTLED,
    LogMissing: Standing.LOG_LOST,
    LogBehind: Standing.LOG_LOST,
    LogForked: Standing.FORKED,
    LogGap: Standing.BEHIND,
}


def standing_of(fault: LogFault) -> Standing:
    return _STANDINGS[type(fault)]


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


def way_on(standing: Standing, *, in_sync: bool, has_in_sync_peers: bool) -> Way:
    """An in-sync replica speaks for the shard: what it holds must not get lost, so the log is rebuilt. Another one
    gives way to the log. The last in-sync one has nobody to copy from."""
    if standing is Standing.UNSETTLED:
        return Way.WAIT
    if standing is Standing.BEHIND:
        return Way.COPY if has_in_sync_peers or not in_sync else Way.RECOVER
    if in_sync or standing is Standing.LOG_LOST:
        return Way.RECOVER
    return Way.SAVE_AND_COPY
