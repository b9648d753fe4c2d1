"""Which members keep logs from being trimmed without need. Pure, but for reading positions.

A log keeps every entry after the lowest position in it. Members that are gone, or are no replicas, should have none.
"""

from collections.abc import Iterator, Mapping

from kintsugi.doctor.findings import Finding, problem, warning
from kintsugi.log.read import Head
from kintsugi.registry.records import ReplicaState, Shard

# A quarter of the default bound of a log.
_MUCH_BYTES = 128 * 2**20


def check_holds(
    name: str, shard: Shard, head: Head | None, positions: Mapping[str, int], alive: Mapping[str, object]
) -> Iterator[Finding]:
    """`positions` hold the log of the shard; `alive` are the members with a lease."""
    if head is None:
        yield problem(name, "its log is not in redis", "start all shard servers: they rebuild it")
        return
    for member, seq in sorted(positions.items(), key=lambda item: item[1]):
        waiting = head.position.seq - seq
        why = _needless(shard, member, alive)
        if waiting <= 0 or not why:
            continue
        kind = problem if head.bytes > _MUCH_BYTES else warning
        yield kind(
            name,
            f"{member}, which {why}, keeps {waiting:,} records in the log from being trimmed; the log holds "
            f"{head.bytes / 2**20:,.0f} MiB",
            "start that shard server, so that it catches up; when it stays away it leaves the in-sync set and lets go, "
            "unless it is the last replica in sync",
        )


def _needless(shard: Shard, member: str, alive: Mapping[str, object]) -> str:
    """Why the member should not hold the log; '' when it rightly does."""
    if member not in alive:
        return "has no lease"
    state = shard.replicas.get(member)
    if state is None:
        return "is no replica of the shard"
    return "is out of sync" if state is ReplicaState.OUT_OF_SYNC else ""
