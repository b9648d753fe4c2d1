"""Whether a Redis is fit to order the writes of a cluster. Pure."""

from collections.abc import Iterator
from typing import Any

from kintsugi.doctor.findings import Finding, problem, warning
from kintsugi.doctor.redis_facts import RedisFacts
from kintsugi.errors import FailedPrecondition
from kintsugi.redis_client import check_info

# What coordinators let one shard's log hold when nobody sets --max-log-bytes.
DEFAULT_MAX_LOG_BYTES = 512 * 2**20
_MIB = 2**20
_LEAST_MEMORY = 64 * _MIB
_CLOCK_TOLERANCE_S = 2.0
_SLOW_S = 0.02
_FULL, _NEARLY_FULL = 0.9, 0.75


def check_redis(facts: RedisFacts, shards: int) -> Iterator[Finding]:
    """`shards` have their logs there."""
    yield from _kind(facts)
    yield from _persistence(facts)
    yield from _memory(facts, shards)
    yield from _load(facts)


def _kind(facts: RedisFacts) -> Iterator[Finding]:
    """The two things for which processes refuse a server, each as if the other were well; and its role."""
    info = facts.info
    for fields, advice in (
        ({"maxmemory_policy": "noeviction"}, "use Redis 6.2 or newer, or any Valkey"),
        (
            {"redis_version": "99.0"},
            "CONFIG SET maxmemory-policy noeviction, and set it in the configuration file, too",
        ),
    ):
        try:
            check_info({**info, **fields})
        except FailedPrecondition as error:
            yield problem(facts.name, error.message.partition("; set it")[0], advice)
    if info.get("role") in ("slave", "replica"):
        yield problem(
            facts.name, "it is a replica and takes no writes", "name its primary in --redis, or use sentinel://"
        )
    if info.get("loading"):
        yield problem(facts.name, "it still loads its data", "wait; if it takes long, its append-only file is long")


def _persistence(facts: RedisFacts) -> Iterator[Finding]:
    info = facts.info
    if not info.get("aof_enabled"):
        message = (
            "appendonly is no: a restart loses the registry and all logs, writes are then refused until recovery is "
            "done, and writes acknowledged as logged are lost"
        )
        kind = warning if info.get("connected_slaves") else problem
        yield kind(facts.name, message, "CONFIG SET appendonly yes, and set it in the configuration file, too")
    elif facts.appendfsync == "no":
        yield warning(
            facts.name,
            "appendfsync is no: a crash of its machine loses what the system had not written yet",
            "CONFIG SET appendfsync everysec, or always when writes acknowledged as logged must survive",
        )
    for field, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if str(info.get(field, "ok")) != "ok":
            yield problem(
                facts.name,
                f"its last {what} could not be written ({field} is {info[field]}), so that it may refuse writes",
                "make room on its disk and look into its log",
            )


def _memory(facts: RedisFacts, shards: int) -> Iterator[Finding]:
    most, used = _number(facts, "maxmemory"), _number(facts, "used_memory")
    whole = most or _number(facts, "total_system_memory")
    name = "maxmemory" if most else "the memory of its machine"
    if whole and used > _FULL * whole:
        yield problem(
            facts.name,
            f"it uses {_mib(used)} of {_mib(whole)}, {name}: soon it refuses writes",
            "raise maxmemory, and see which replica keeps a log long in `kintsugi status`",
        )
    elif whole and used > _NEARLY_FULL * whole:
        yield warning(facts.name, f"it uses {_mib(used)} of {_mib(whole)}, {name}", "raise maxmemory")
    needed = shards * DEFAULT_MAX_LOG_BYTES
    if most and most < _LEAST_MEMORY:
        yield problem(
            facts.name,
            f"maxmemory is {_mib(most)}, too little for any log",
            f"CONFIG SET maxmemory to {_mib(max(needed, DEFAULT_MAX_LOG_BYTES))} or more, and in the configuration file",
        )
    elif most and most < needed:
        yield warning(
            facts.name,
            f"maxmemory is {_mib(most)}, the logs of {shards} shards may take up to {_mib(needed)} while replicas are away",
            f"raise maxmemory to {_mib(needed)}, or lower --max-log-bytes of the coordinators to {_mib(most // shards)}",
        )


def _load(facts: RedisFacts) -> Iterator[Finding]:
    clients, most = _number(facts, "connected_clients"), _number(facts, "maxclients")
    if most and clients > 0.8 * most:
        yield warning(facts.name, f"{clients} of {most} connections are taken", "raise maxclients")
    if facts.latency_s > _SLOW_S:
        yield warning(
            facts.name,
            f"it answers a PING in {facts.latency_s * 1000:.0f} ms, and every write waits for it",
            "move it nearer, give its machine more CPU, and look for slow commands of others with SLOWLOG GET",
        )
    if abs(facts.clock_ahead_s) > _CLOCK_TOLERANCE_S:
        way = "ahead of" if facts.clock_ahead_s > 0 else "behind"
        yield warning(
            facts.name,
            f"its clock is {abs(facts.clock_ahead_s):,.0f} s {way} this machine's",
            "synchronise both clocks by NTP: leases end by the clock of redis, and a clock that jumps ends them early",
        )


def _number(facts: RedisFacts, field: str) -> int:
    value: Any = facts.info.get(field, 0)
    return int(value) if str(value).isdigit() else 0


def _mib(count: int) -> str:
    return f"{count / _MIB:,.0f} MiB" if count < 10 * 2**30 else f"{count / 2**30:,.0f} GiB"
