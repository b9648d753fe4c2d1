"""What a check of a collection found, replica by replica, and what it says of each shard. Pure but for reading the
protos.

Replicas of a shard that stand at the same sequence number hold the same log and the same content, or one of them is
damaged. At different ones nothing can be said: they are not compared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kintsugi.v1 import cluster_pb2


@dataclass(frozen=True, slots=True)
class ReplicaCheck:
    """What the check of one replica found. `failure` says why it could not be checked, and is '' when it was; what
    follows is set only then. `recall` is None when it held no vector to search for. `replicas` are those of the shard."""

    shard: int
    member: str
    replicas: int
    failure: str
    seq: int
    log_digest: bytes
    content_digest: bytes
    documents: int
    index_version: int
    encoding: str
    queries: int
    recall: float | None


class Agreement(StrEnum):
    """How the replicas of a shard stand to each other, the worst first."""

    DIFFER = "differ"
    """Two of them hold different logs or contents at the same sequence number."""
    UNCHECKED = "unchecked"
    """One of them could not be checked; the others do not differ."""
    NOT_COMPARED = "not-compared"
    """One stood at another sequence number, because writes went on; those at the same one agree."""
    ALONE = "alone"
    """There is one only."""
    AGREE = "agree"
    """All of them hold the same."""


@dataclass(frozen=True, slots=True)
class ShardVerdict:
    """What `verdicts(checks)` makes of the checks of a shard. `message` says for people who differs in what, who was not checked and why, or who stood where. `recall` is the
    lowest of the replicas', None when none was measured."""

    shard: int
    agreement: Agreement
    message: str
    recall: float | None


def verdicts(checks: Iterable[ReplicaCheck]) -> tuple[ShardVerdict, ...]:
    """What the checks say of each shard, in the order of the shards."""
    by_shard: dict[int, list[ReplicaCheck]] = {}
    for check in checks:
        by_shard.setdefault(check.shard, []).append(check)
    return tuple(_verdict(shard, mine) for shard, mine in sorted(by_shard.items()))


def _verdict(shard: int, checks: Sequence[ReplicaCheck]) -> ShardVerdict:
    checked = sorted((check for check in checks if not check.failure), key=lambda check: check.member)
    failed = sorted((check for check in checks if check.failure), key=lambda check: check.member)
    recall = min((check.recall for check in checked if check.recall is not None), default=None)
    agreement, message = _compare(checked)
    if agreement is not Agreement.DIFFER and failed:
        agreement = Agreement.UNCHECKED
        message = "; ".join(f"{check.member} could not be checked: {check.failure}" for check in failed)
    return ShardVerdict(shard, agreement, message, recall)


def _compare(checked: Sequence[ReplicaCheck]) -> tuple[Agreement, str]:
    first_at: dict[int, ReplicaCheck] = {}
    for check in checked:
        other = first_at.setdefault(check.seq, check)
        what = _difference(other, check)
        if what:
            message = f"{other.member} and {check.member} hold different {what} at sequence number {check.seq}"
            return Agreement.DIFFER, message
    if len(first_at) > 1:
        where = ", ".join(f"{check.member} at {check.seq}" for check in checked)
        return Agreement.NOT_COMPARED, f"positions differ: {where}"
    return (Agreement.AGREE if len(checked) > 1 else Agreement.ALONE), ""


def _difference(one: ReplicaCheck, other: ReplicaCheck) -> str:
    if one.log_digest != other.log_digest:
        return "logs"
    if one.documents != other.documents:
        return f"contents ({one.documents:,} and {other.documents:,} documents)"
    return "contents" if one.content_digest != other.content_digest else ""


def replica_check(response: cluster_pb2.VerifyResponse) -> ReplicaCheck:
    return ReplicaCheck(
        shard=response.shard,
        member=response.member,
        replicas=response.replicas,
        failure=response.failure,
        seq=response.seq,
        log_digest=response.log_digest,
        content_digest=response.content_digest,
        documents=response.documents,
        index_version=response.index_version,
        encoding=response.encoding,
        queries=response.queries,
        recall=response.recall if response.queries else None,
    )
