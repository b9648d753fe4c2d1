"""Where a replica stands towards its log, and how it goes on: the whole tables."""

import pytest

from kintsugi.log.faults import (
    LogBehind,
    LogForked,
    LogGap,
    LogMissing,
    LogMoved,
    LogRestoring,
    RecordUnreadable,
    RestoreRefused,
)
from shard.standing import EpochRefused, PeerHoldsMore, Standing, Way, standing_of, way_on

STANDINGS = {
    LogMissing("gone"): Standing.LOG_LOST,
    LogRestoring("again"): Standing.LOG_LOST,
    PeerHoldsMore("peer"): Standing.LOG_LOST,
    EpochRefused("promised"): Standing.LOG_LOST,
    LogBehind("short"): Standing.DIFFERENT,
    LogForked("other"): Standing.DIFFERENT,
    LogGap("trimmed"): Standing.BEHIND,
    LogMoved("later epoch", incarnation=3, epoch=6): Standing.UNSETTLED,
    LogMoved("later incarnation", incarnation=4, epoch=1): Standing.UNSETTLED,
    LogMoved("later entries", incarnation=None, epoch=6): Standing.UNSETTLED,
    LogMoved("earlier epoch", incarnation=3, epoch=4): Standing.LOG_LOST,
    LogMoved("earlier incarnation", incarnation=2, epoch=9): Standing.LOG_LOST,
    RecordUnreadable("damaged"): None,
    RestoreRefused("not ours"): None,
}
# in sync -> the way on
WAYS = {
    Standing.UNSETTLED: {True: Way.WAIT, False: Way.WAIT},
    Standing.LOG_LOST: {True: Way.RECOVER, False: Way.RECOVER},
    Standing.DIFFERENT: {True: Way.RECOVER, False: Way.SAVE_AND_COPY},
    # Even the last one in sync: what its disk lost is not its to decide.
    Standing.BEHIND: {True: Way.COPY, False: Way.COPY},
}


@pytest.mark.parametrize("fault", STANDINGS, ids=lambda fault: f"{type(fault).__name__}-{fault}")
def test_each_fault_means_one_standing(fault):
    """Against a registry that says incarnation 3, epoch 5 is open, a log of an earlier one has gone back."""
    assert standing_of(fault, incarnation=3, epoch=5) is STANDINGS[fault]


@pytest.mark.parametrize("standing", Standing)
@pytest.mark.parametrize("in_sync", [True, False])
def test_each_standing_has_one_way_on(standing, in_sync):
    """Only who is in sync, or the loss of the log itself, has the log rebuilt; others give way and copy."""
    assert way_on(standing, in_sync=in_sync) is WAYS[standing][in_sync]
