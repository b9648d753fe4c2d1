"""Whether a cluster does its work, judged from its status. Pure.

ok         every search and write is answered, and nothing is missing
degraded   the same, but something is missing: the next fault may be felt
failing    some searches or writes are not answered
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from kintsugi.cli.exit_codes import EXIT_DEGRADED, EXIT_DONE, EXIT_FAILING
from kintsugi.sdk.status import ClusterStatus, ReplicaStatus, ShardStatus

# Records behind the log from which a replica is said to lag: seconds of writing, not milliseconds.
LAG_RECORDS = 50_000


class Health(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    FAILING = "failing"

    @property
    def exit_code(self) -> int:
        return {Health.OK: EXIT_DONE, Health.DEGRADED: EXIT_DEGRADED, Health.FAILING: EXIT_FAILING}[self]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the health is what it is. `subject` names what it is about, such as "books/0" or a member's id."""

    health: Health
    subject: str
    message: str


def judge(status: ClusterStatus) -> tuple[Health, tuple[Problem, ...]]:
    """The health and its reasons, the worst first."""
    found = sorted(_problems(status), key=lambda problem: problem.health is not Health.FAILING)
    return (found[0].health if found else Health.OK), tuple(found)


def _problems(status: ClusterStatus) -> Iterator[Problem]:
    if status.registry != "ok":
        message = f"the registry is {status.registry}, writes are refused: {status.message}"
        yield Problem(Health.FAILING, "registry", message)
    for member in status.members:
        # Coordinators that are gone are missed by nobody: clients use the others.
        if member.role == "shard" and not member.alive:
            yield Problem(Health.DEGRADED, member.id, f"shard server {member.address} is gone")
        elif member.role == "shard" and not member.lifecycle:
            yield Problem(
                Health.DEGRADED, member.id, f"shard server {member.address} holds a lease and does not answer"
            )
    for collection in status.collections:
        for shard in collection.shards:
            yield from _of_shard(f"{collection.name}/{shard.shard}", shard)


def _of_shard(name: str, shard: ShardStatus) -> Iterator[Problem]:
    if shard.log_state != "open":
        yield Problem(Health.FAILING, name, f"its log is {shard.log_state}, writes are refused: {shard.message}")
    if not any(answers(replica) for replica in shard.replicas):
        yield Problem(Health.FAILING, name, "no replica in sync answers, searches are refused")
    for replica in shard.replicas:
        if not replica.reachable:
            yield Problem(Health.DEGRADED, name, f"the replica on {replica.member} does not answer")
        elif not answers(replica):
            why = f": {replica.message}" if replica.message else ""
            yield Problem(
                Health.DEGRADED, name, f"the replica on {replica.member} is {replica.state} and {replica.phase}{why}"
            )
        elif (lag(shard, replica) or 0) > LAG_RECORDS:
            yield Problem(
                Health.DEGRADED, name, f"the replica on {replica.member} is {lag(shard, replica):,} records behind"
            )


def answers(replica: ReplicaStatus) -> bool:
    return replica.reachable and replica.state == "in-sync" and replica.phase == "serving"


def lag(shard: ShardStatus, replica: ReplicaStatus) -> int | None:
    """The records of the log that the replica has not on disk; None when log or replica did not answer."""
    if not shard.log_seq or not replica.reachable:
        return None
    return max(0, shard.log_seq - replica.durable_seq)
