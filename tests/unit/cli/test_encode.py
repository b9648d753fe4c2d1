"""How far the replicas are with an encoding, and waiting for them."""

import pytest
from harness.statuses import replica, shard, silent, status

from kintsugi.cli.encode import follow
from kintsugi.errors import DeadlineExceeded
from kintsugi.sdk.rollout import Step, rollout
from kintsugi.sdk.status import CollectionStatus, IndexVersionStatus

OLD = IndexVersionStatus(1, "m", "i8", "serving", 90, 50)
NEW = IndexVersionStatus(2, "m", "binary", "serving", 90, 50)
BUILDING = IndexVersionStatus(2, "m", "binary", "building", 30, 0, vectors_wanted=90, reason="binary is wanted")
REFUSED = IndexVersionStatus(2, "m", "binary", "retired", 90, 0, reason="it finds 0.40 of the best")
WAITING = replica("s0", index_versions=(OLD,), settled_encoding_requests=2)
BUILDS = replica("s0", index_versions=(OLD, BUILDING), settled_encoding_requests=2)
SERVES = replica("s0", index_versions=(NEW,), settled_encoding_requests=3)
REFUSES = replica("s0", index_versions=(OLD, REFUSED), settled_encoding_requests=3)


def seen(*replicas, encoding="binary"):
    found = rollout(status(collections=(CollectionStatus("books", (shard(*replicas),), encoding, 3),)), "books")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("told", "encoding", "step"),
    [
        (silent("s0"), "binary", Step.UNKNOWN),
        (replica("s0", index_versions=(BUILDING,)), "binary", Step.UNKNOWN),
        (WAITING, "binary", Step.WAITING),
        (BUILDS, "binary", Step.BUILDING),
        (SERVES, "binary", Step.SERVING),
        (REFUSES, "binary", Step.REFUSED),
        (replica("s0", index_versions=(OLD,), settled_encoding_requests=3), "binary", Step.TOO_SMALL),
        (replica("s0", index_versions=(OLD, BUILDING), settled_encoding_requests=3), "binary", Step.BUILDING),
        # What was refused or built for an earlier request says nothing of this one.
        (replica("s0", index_versions=(OLD, REFUSED), settled_encoding_requests=2), "binary", Step.WAITING),
        (replica("s0", index_versions=(NEW,), settled_encoding_requests=2), "binary", Step.WAITING),
        # The replica's own choice, whatever it is.
        (SERVES, "auto", Step.SERVING),
        (WAITING, "auto", Step.WAITING),
    ],
)
def test_a_replica_is_where_its_index_versions_say(told, encoding, step):
    """By what it serves and builds, and by the request that it has settled."""
    assert seen(told, encoding=encoding).replicas[0].step is step


def test_what_is_built_and_why_it_was_refused_is_told():
    """Vectors while building, the check's reason afterwards."""
    building, refused = seen(BUILDS, REFUSES).replicas
    assert (building.vectors, building.vectors_wanted, building.encoding) == (30, 90, "i8")
    assert refused.reason == "it finds 0.40 of the best"
    assert seen(SERVES, REFUSES).done
    assert len(seen(SERVES, REFUSES).refused) == 1


def test_a_collection_that_is_not_there_has_no_rollout():
    """None, not an empty one, which would look done."""
    assert rollout(status(), "other") is None


def test_a_coordinator_that_does_not_know_the_request_yet_is_not_believed():
    """What all replicas had settled before it says nothing."""
    told = status(collections=(CollectionStatus("books", (shard(SERVES),), "binary", 3),))
    assert rollout(told, "books", 3).done
    assert rollout(told, "books", 4).replicas[0].step is Step.WAITING


def test_waiting_ends_when_every_replica_serves_or_has_refused():
    """Each look is shown; between two there is a pause."""
    looks, shown, slept = [seen(WAITING, BUILDS), seen(BUILDS, SERVES), seen(REFUSES, SERVES)], [], []
    found = follow(lambda: looks[len(shown)], shown.append, sleep=slept.append)
    assert shown == looks
    assert found is looks[-1]
    assert len(slept) == 2


def test_waiting_ends_in_time_and_says_who_is_not_ready():
    """After the time given, with the first replica that is not there yet."""
    now = iter(range(100))
    with pytest.raises(DeadlineExceeded, match=r"shard 0 on s0 is building after 3 s; the change is recorded"):
        follow(lambda: seen(BUILDS), lambda _: None, 3, clock=lambda: next(now), sleep=lambda _: None)
