"""What a coordinator's status shows that is not well. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from kintsugi.doctor.findings import Finding, problem, warning
from kintsugi.sdk.status import ClusterStatus, MemberStatus, ReplicaStatus, ShardStatus

# Records behind the log from which a replica is said to lag.
LAG_RECORDS = 50_000

_REGISTRY_ADVICE = {
    "unreachable": "start Redis or mend the way to it; searches go on, and writes come back with it",
    "missing": "start all shard servers: they restore it; `kintsugi init` is only for a cluster that never was",
    "regressed": "start all shard servers: they restore the newer state",
    "forked": "start all shard servers: they restore the state that they agree on",
    "foreign": "point the processes to their own Redis with --redis, or to their own --namespace",
}
# What the message of a failed replica says, and what to do then.
_FAILURES = (
    ("its quota is", "raise --max-replica-bytes of that shard server, or delete documents"),
    ("storage is full", "make room on the disk of that shard server"),
    ("corrupt", "bring back its disk or an in-sync peer to copy from; see corrupt/ in its data folder"),
    ("too new", "start that shard server with the newer release that wrote its files"),
)


def check_registry(status: ClusterStatus) -> Iterator[Finding]:
    if status.registry != "ok":
        advice = _REGISTRY_ADVICE.get(status.registry, "see docs/operations.md")
        away = [member.address for member in status.members if member.role == "shard" and not member.lifecycle]
        if away and status.registry not in ("foreign", "unreachable"):
            advice += f"; not seen now: {', '.join(away)}"
        yield problem("registry", f"it is {status.registry}, writes are refused: {status.message}", advice)


def check_members(status: ClusterStatus) -> Iterator[Finding]:
    # Otherwise nobody can renew a lease, and those last seen say nothing.
    leases_count = status.registry == "ok"
    for member in status.members:
        yield from _check_member(member, leases_count=leases_count)
    yield from _addresses(status)
    versions = Counter(member.version for member in status.members if member.alive)
    if len(versions) > 1:
        told = ", ".join(f"{count} of {version}" for version, count in sorted(versions.items()))
        yield warning("members", f"they are of different versions: {told}", "finish the rolling restart to one version")


def _check_member(member: MemberStatus, *, leases_count: bool) -> Iterator[Finding]:
    if member.role != "shard":
        if not member.alive and leases_count:
            yield warning(
                member.id, f"coordinator {member.address} is gone",
                "start it again if it is still wanted; it is forgotten by itself after a while",
            )  # fmt: skip
    elif not member.lifecycle and member.alive and leases_count:
        yield problem(
            member.id,
            f"shard server {member.address} holds a lease, and nothing answers at its address",
            "check that coordinators reach that address (--advertise, firewall, DNS); if the process hangs, its log "
            "says why, and a restart loses nothing",
        )
    elif not member.lifecycle:
        yield problem(
            member.id,
            f"shard server {member.address} is gone" if leases_count else f"shard server {member.address} is silent",
            "start it again with its data folder; its replicas catch up by themselves",
        )
    elif member.lifecycle != "SERVING":
        yield warning(
            member.id, f"shard server {member.address} is {member.lifecycle}", "wait; its log says what it does"
        )


def _addresses(status: ClusterStatus) -> Iterator[Finding]:
    at: defaultdict[str, list[MemberStatus]] = defaultdict(list)
    for member in status.members:
        at[member.address].append(member)
    for address, members in sorted(at.items()):
        if len(members) > 1 and any(member.alive for member in members):
            kind = problem if sum(member.alive for member in members) > 1 else warning
            yield kind(
                address,
                f"{' and '.join(member.id for member in members)} both have this address",
                "give every process an address (--advertise) and a data folder of its own; a data folder that was "
                "lost makes a new member, whose former self stays until its folder is brought back",
            )


def check_shards(status: ClusterStatus) -> Iterator[Finding]:
    for collection in status.collections:
        for shard in collection.shards:
            name = f"{collection.name}/{shard.shard}"
            if shard.log_state != "open":
                yield _recovering(name, shard, status)
            for replica in shard.replicas:
                yield from _check_replica(name, shard, replica)


def _recovering(name: str, shard: ShardStatus, status: ClusterStatus) -> Finding:
    addresses = {member.id: member.address for member in status.members}
    silent = [
        addresses.get(replica.member, replica.member)
        for replica in shard.replicas
        if replica.state == "in-sync" and not replica.reachable
    ]
    advice = (
        f"start the shard servers at {', '.join(silent)}; if they will not come back, see `kintsugi recover` and then "
        f"`kintsugi recover --accept-loss {name}`"
        if silent
        else "wait; if it stays, the logs of its shard servers say why"
    )
    return problem(name, f"its log is {shard.log_state}, writes are refused: {shard.message}", advice)


def _check_replica(name: str, shard: ShardStatus, replica: ReplicaStatus) -> Iterator[Finding]:
    where = f"the replica on {replica.member}"
    if not replica.reachable:
        yield problem(
            name, f"{where} does not answer; it is {replica.state}", "see what is said about that shard server"
        )
    elif replica.phase in ("failed", "halted"):
        advice = next((advice for word, advice in _FAILURES if word in replica.message), "see the log of that server")
        yield problem(name, f"{where} is {replica.phase}: {replica.message}", advice)
    elif replica.state != "in-sync":
        doing = f"{replica.phase}{f', {replica.message}' if replica.message else ''}"
        yield warning(
            name, f"{where} is {replica.state} ({doing})", "wait: it joins again by itself; see its log if not"
        )
    elif replica.phase != "serving":
        yield warning(name, f"{where} is {replica.phase} {replica.message}".rstrip(), "wait: it catches up by itself")
    elif shard.log_seq - replica.durable_seq > LAG_RECORDS:
        yield warning(
            name,
            f"{where} is {shard.log_seq - replica.durable_seq:,} records behind the log",
            "give its machine a faster disk or fewer replicas, or write more slowly",
        )
