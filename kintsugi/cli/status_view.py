"""Draws the status as tables."""

from rich.console import Group, RenderableType
from rich.table import Table

from kintsugi.cli import output
from kintsugi.cli.health import Health, judge, lag
from kintsugi.sdk.status import ClusterStatus, IndexVersionStatus, MemberStatus, ReplicaStatus, ShardStatus

_COLOURS = {Health.OK: "green", Health.DEGRADED: "yellow", Health.FAILING: "red"}
_GOOD = {"ok", "open", "in-sync", "serving", "SERVING"}


def view(status: ClusterStatus) -> RenderableType:
    """Health with its reasons, members, then a table per collection."""
    health, problems = judge(status)
    parts: list[RenderableType] = [
        f"cluster {status.cluster_id or '(never seen)'}: {output.coloured(health.value, _COLOURS[health])}",
        f"registry {_word(status.registry)} at incarnation {status.incarnation}, revision {status.revision}",
    ]
    parts += [
        output.coloured(f"{problem.subject}: {problem.message}", _COLOURS[problem.health]) for problem in problems
    ]
    parts.append(_members(status.members))
    for collection in status.collections:
        table = output.table(
            *("shard", "log", "replica on", "state", "phase", "durable", "searchable", "lag", "documents", "disk"),
            "index",
            title=f"collection {collection.name}, wanted encoding {collection.encoding}",
        )
        for shard in collection.shards:
            _add_shard(table, shard)
        parts.append(table)
    return Group(*parts)


def _members(members: tuple[MemberStatus, ...]) -> Table:
    table = output.table("member", "role", "address", "alive", "lifecycle", "memory", "disk free", "version")
    for member in members:
        machine = member.machine
        table.add_row(
            member.id,
            member.role,
            member.address,
            output.coloured("yes", "green") if member.alive else output.coloured("no", "red"),
            _word(member.lifecycle or ("not asked" if member.role == "coordinator" else "no answer")),
            _memory(member),
            f"{size(machine.disk_free_bytes)} of {size(machine.disk_total_bytes)}" if machine else "",
            member.version,
        )
    return table


def _memory(member: MemberStatus) -> str:
    limit = member.machine.memory_limit_bytes if member.machine else 0
    return f"{size(member.resident_bytes)}{f' of {size(limit)}' if limit else ''}" if member.resident_bytes else ""


def _add_shard(table: Table, shard: ShardStatus) -> None:
    log = f"{_word(shard.log_state)}, epoch {shard.epoch}"
    if shard.log_seq:
        log += f", at {shard.log_seq:,}, {size(shard.log_bytes)}"
    head = [str(shard.shard), log]
    for replica in shard.replicas or (None,):
        table.add_row(*head, *(_replica_cells(shard, replica) if replica else ["(none)"]))
        head = [""] * len(head)


def _replica_cells(shard: ShardStatus, replica: ReplicaStatus) -> list[str]:
    cells = [replica.member, _word(replica.state)]
    if not replica.reachable:
        return [*cells, _word("no answer")]
    indexes = ", ".join(map(_index, replica.index_versions))
    behind = lag(shard, replica)
    numbers = [f"{replica.durable_seq:,}", f"{replica.searchable_seq:,}", "" if behind is None else f"{behind:,}"]
    return [*cells, _word(replica.phase), *numbers, f"{replica.documents:,}", size(replica.disk_bytes), indexes]


def _index(index: IndexVersionStatus) -> str:
    told = f"v{index.version} {index.encoding} {_word(index.state)}"
    if index.vectors_wanted:
        return f"{told} ({index.vectors:,} of {index.vectors_wanted:,})"
    if index.state == "retired":
        return f"{told} ({output.plain(index.reason)})" if index.reason else told
    recall = "" if index.live_recall is None else f", recall {index.live_recall:.3f}"
    return f"{told} ({index.vectors:,}{recall})"


def _word(word: str) -> str:
    return output.coloured(word, "green" if word in _GOOD else "yellow")


def size(count: int) -> str:
    """Bytes for people."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:,.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
