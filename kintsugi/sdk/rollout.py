"""How far the replicas of a collection are with the encoding that is wanted, told by a status. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from kintsugi.ann.spec import AUTOMATIC
from kintsugi.sdk.status import ClusterStatus, CollectionStatus, IndexVersionStatus, ReplicaStatus


class Step(StrEnum):
    """Where a replica is."""

    # Its shard server does not answer, or it has no index yet.
    UNKNOWN = "no-answer"
    # It searches its old index version and has not begun to build: another replica's turn comes first.
    WAITING = "waiting"
    # It builds a version beside the one that it searches.
    BUILDING = "building"
    # It searches a version as wanted.
    SERVING = "serving"
    # It has too few vectors to fit the encoding to; it searches them in full precision until there are more.
    TOO_SMALL = "too-small"
    # It built one, which found too little of what exact search finds; it goes on with the version it has.
    REFUSED = "refused"

    @property
    def is_last(self) -> bool:
        """Whether nothing more happens by itself soon."""
        return self in {Step.SERVING, Step.TOO_SMALL, Step.REFUSED}


@dataclass(frozen=True, slots=True)
class ReplicaProgress:
    """`encoding` is what it searches now; `vectors` of `vectors_wanted` are built; `reason` says why it was refused, or
    what it waits for."""

    shard: int
    member: str
    step: Step
    encoding: str
    vectors: int
    vectors_wanted: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """`encoding` is the one that is wanted."""

    collection: str
    encoding: str
    replicas: tuple[ReplicaProgress, ...]

    @property
    def done(self) -> bool:
        return all(replica.step.is_last for replica in self.replicas)

    @property
    def refused(self) -> tuple[ReplicaProgress, ...]:
        return tuple(replica for replica in self.replicas if replica.step is Step.REFUSED)


def rollout(status: ClusterStatus, collection: str, requests: int = 0) -> Rollout | None:
    """None when the status knows no such collection. `requests`: how often an encoding was asked for, if the caller knows
    it better than the coordinator that was asked for the status, as may be just after it changed."""
    found = next((one for one in status.collections if one.name == collection), None)
    if found is None:
        return None
    known = replace(found, encoding_requests=max(requests, found.encoding_requests))
    return Rollout(known.name, known.encoding, tuple(_replicas(known)))


def _replicas(collection: CollectionStatus) -> Iterator[ReplicaProgress]:
    for shard in collection.shards:
        for replica in shard.replicas:
            yield _progress(collection, shard.shard, replica)


def _progress(collection: CollectionStatus, shard: int, replica: ReplicaStatus) -> ReplicaProgress:
    serving = _newest(replica, "serving")
    building = _newest(replica, "building") or _newest(replica, "ready")
    encoding = serving.encoding if serving is not None else ""
    settled = replica.settled_encoding_requests >= collection.encoding_requests
    vectors = wanted = 0
    reason = ""
    if not replica.reachable or serving is None:
        step = Step.UNKNOWN
    elif settled and collection.encoding in (encoding, AUTOMATIC.name):
        step = Step.SERVING
    elif building is not None and (not settled or building.encoding == collection.encoding):
        step, reason = Step.BUILDING, building.reason
        vectors, wanted = building.vectors, building.vectors_wanted
    elif settled:
        reason = _why_refused(replica, collection.encoding)
        step = Step.REFUSED if reason else Step.TOO_SMALL
    else:
        step, reason = Step.WAITING, replica.message
    return ReplicaProgress(shard, replica.member, step, encoding, vectors, wanted, reason)


def _newest(replica: ReplicaStatus, state: str) -> IndexVersionStatus | None:
    return max((v for v in replica.index_versions if v.state == state), key=lambda v: v.version, default=None)


def _why_refused(replica: ReplicaStatus, encoding: str) -> str:
    told = [
        version for version in replica.index_versions if version.state == "retired" and version.encoding == encoding
    ]
    return max(told, key=lambda version: version.version).reason if told else ""
