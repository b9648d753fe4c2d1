"""Examines a cluster: asks every coordinator, Redis and this machine, and checks what they say.

Nothing is changed. What cannot be asked becomes a finding or a skipped check; other checks go on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from kintsugi.doctor import cluster_checks, log_checks, machine_checks
from kintsugi.doctor.findings import Check, Finding, Report, check, problem, warning
from kintsugi.doctor.redis_checks import check_redis
from kintsugi.doctor.redis_facts import look
from kintsugi.errors import InvalidArgument, KintsugiError
from kintsugi.keys import Keys
from kintsugi.log.positions import LogPositions
from kintsugi.log.read import LogReader
from kintsugi.machine import machine_status
from kintsugi.redis_client import RedisClient, connect, redis_errors, without_password
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Snapshot
from kintsugi.registry.store import RegistryStore
from kintsugi.sdk.aio import AsyncClient
from kintsugi.sdk.status import ClusterStatus, machine_values

_REDIS_TIMEOUT_S = 3.0
_SLOW_COORDINATOR_S = 0.25
_NO_REDIS = "no redis was named: --redis URL or KINTSUGI_REDIS"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look at. `redis` may be '', `data` None: then it is left out, and the report says so."""

    addresses: tuple[str, ...]
    redis: str = ""
    namespace: str = "kintsugi"
    data: Path | None = None
    timeout_s: float = 3.0


@dataclass(frozen=True, slots=True)
class Told:
    """A status that took `took_s` to come, at this machine's time `at`; `latency_s` is that of a short call."""

    status: ClusterStatus
    took_s: float
    at: datetime
    latency_s: float = 0.0


@dataclass(slots=True)
class Answers:
    """What the coordinators said, by address, or why they said nothing."""

    told: dict[str, Told] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def first(self) -> ClusterStatus | None:
        """The status of one coordinator, of one that sees a healthy registry when there is one."""
        found = [told.status for told in self.told.values()]
        return min(found, key=lambda status: status.registry != "ok", default=None)


async def examine(plan: Plan) -> Report:
    answers = await _ask_coordinators(plan)
    status = answers.first
    checks = [check("coordinators", _coordinators(plan, answers))]
    if status is None:
        why = "no coordinator answers"
        checks += [Check(name, skipped=why) for name in ("registry", "members", "shards")]
    else:
        checks.append(check("registry", cluster_checks.check_registry(status)))
        checks.append(check("members", cluster_checks.check_members(status)))
        checks.append(check("shards", cluster_checks.check_shards(status)))
    checks.append(check("machines", _machines(plan, answers)))
    checks += await _redis(plan, status)
    return Report(tuple(checks))


# --- Coordinators -----------------------------------------------------------------------------------------------------


async def _ask_coordinators(plan: Plan) -> Answers:
    """Those that were named, then all that these know."""
    answers = Answers()
    wanted = set(plan.addresses)
    while wanted:
        await asyncio.gather(*(_ask(address, plan.timeout_s, answers) for address in sorted(wanted)))
        members = answers.first.members if answers.first else ()
        known = {member.address for member in members if member.role == "coordinator" and member.alive}
        wanted = known - answers.told.keys() - answers.failures.keys()
    return answers


async def _ask(address: str, timeout_s: float, answers: Answers) -> None:
    try:
        async with AsyncClient(address, timeout_s=timeout_s) as client:
            began = time.perf_counter()
            status = await client.status()
            told = Told(status, time.perf_counter() - began, datetime.now(UTC))
            answers.told[address] = told
            # Not the status, which waits for silent members.
            began = time.perf_counter()
            await client.collections()
            answers.told[address] = replace(told, latency_s=time.perf_counter() - began)
    except KintsugiError as error:
        # Without a registry there is a status, and no collections to list.
        if address not in answers.told:
            answers.failures[address] = error.message


def _coordinators(plan: Plan, answers: Answers) -> Iterator[Finding]:
    for address, message in sorted(answers.failures.items()):
        if address in plan.addresses:
            advice = "start it with `kintsugi up` or `python -m coordinator`, or name another one with --address"
            yield problem(address, message, advice)
        else:
            yield problem(
                address,
                f"this coordinator holds a lease, and nothing answers from here: {message}",
                "check that this machine reaches that address (--advertise, firewall); if the process hangs, restart it",
            )
    for address, told in sorted(answers.told.items()):
        if told.latency_s > _SLOW_COORDINATOR_S:
            yield warning(
                address,
                f"it answers a short call in {told.latency_s * 1000:,.0f} ms",
                "see how far away it is, give its machine more CPU, or run more coordinators",
            )


def _machines(plan: Plan, answers: Answers) -> Iterator[Finding]:
    seen = set()
    for told in answers.told.values():
        for member in told.status.members:
            if member.machine is None or member.id in seen:
                continue
            seen.add(member.id)
            shard = member.role == "shard"
            yield from machine_checks.check_machine(member.id, member.machine, member.resident_bytes, shard=shard)
            ahead_s = (member.machine.clock - told.at).total_seconds()
            yield from machine_checks.check_clock(member.id, ahead_s, told.took_s)
    if plan.data is not None:
        here = machine_values(machine_status(plan.data))
        yield from machine_checks.check_machine("this machine", here, 0, shard=True)


# --- Redis ------------------------------------------------------------------------------------------------------------


async def _redis(plan: Plan, status: ClusterStatus | None) -> list[Check]:
    if not plan.redis:
        return [Check("redis", skipped=_NO_REDIS), Check("logs", skipped=_NO_REDIS)]
    try:
        async with _connected(plan.redis) as client:
            facts = await look(client)
            registry = RegistryStore(client, Keys(plan.namespace))
            snapshot = await registry.read()
            alive = await registry.leases()
            shards = len(snapshot.view().shards) if snapshot else 0
            found = [finding for one in facts for finding in check_redis(one, shards)]
            found += _cluster_key(plan, snapshot, status)
            logs = await _logs(client, plan, snapshot, alive) if snapshot else []
    except InvalidArgument:
        raise
    except KintsugiError as error:
        advice = "start it, or correct --redis; processes that run go on searching, and writes wait for it"
        found = [problem("redis", f"{without_password(plan.redis)} does not answer: {error.message}", advice)]
        return [check("redis", found), Check("logs", skipped="redis does not answer")]
    return [check("redis", found), check("logs", logs) if snapshot else Check("logs", skipped="redis holds no cluster")]


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[RedisClient]:
    client = connect(url, socket_timeout_s=_REDIS_TIMEOUT_S)
    try:
        yield client
    finally:
        with redis_errors():
            await client.aclose()


def _cluster_key(plan: Plan, snapshot: Snapshot | None, status: ClusterStatus | None) -> Iterator[Finding]:
    """Whether the cluster in Redis is the one that the coordinators know."""
    if snapshot is None and status is not None and status.cluster_id:
        yield problem(
            "redis",
            f"it holds no cluster in namespace {plan.namespace}, the coordinators know cluster {status.cluster_id}",
            "if that is their Redis and namespace, it lost its data: start all shard servers, they restore it; "
            "otherwise correct --redis or --namespace",
        )
    elif snapshot is None:
        yield problem(
            "redis",
            f"it holds no cluster in namespace {plan.namespace}",
            "for a new cluster: kintsugi init --redis URL; for an existing one: correct --redis or --namespace, or start "
            "its shard servers, which restore it",
        )
    elif status is not None and status.cluster_id and status.cluster_id != snapshot.cluster_id:
        yield problem(
            "redis",
            f"namespace {plan.namespace} holds cluster {snapshot.cluster_id}, the coordinators know {status.cluster_id}",
            "two clusters share a Redis and a namespace: give each its own --namespace or Redis",
        )


async def _logs(client: RedisClient, plan: Plan, snapshot: Snapshot, alive: dict[str, LeaseInfo]) -> list[Finding]:
    keys, view = Keys(plan.namespace), snapshot.view()
    holds = LogPositions(client, keys)
    found: list[Finding] = []
    for (uid, number), shard in sorted(view.shards.items()):
        if uid not in view.collections:
            continue
        name = f"{view.collections[uid].name}/{number}"
        head = await LogReader(client, keys, uid, number).head()
        found += log_checks.check_holds(name, shard, head, await holds.all(uid, number), alive)
    return found
