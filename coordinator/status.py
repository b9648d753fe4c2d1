"""Shows the whole cluster as this coordinator knows it: the registry, every member asked, the head of every log.

Never fails for what it reports: a member or log that does not answer is shown as such.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol

from coordinator.replica_calls import ReplicaCalls, answered
from kintsugi.errors import KintsugiError
from kintsugi.internal.v1 import shard_pb2
from kintsugi.lifecycle import LifecycleState
from kintsugi.log.read import Head
from kintsugi.process_memory import resident_bytes
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import LogState, Member, Role, Shard, View
from kintsugi.registry.replicas import awaited
from kintsugi.registry.watch import RegistryHealth
from kintsugi.v1 import cluster_pb2

ReadHead = Callable[[str, int], Awaitable[Head | None]]
ServerStatuses = Mapping[str, shard_pb2.GetServerStatusResponse]

_TIMEOUT_S = 1.0


class Registry(Protocol):
    """The part of RegistryWatcher that the status shows."""

    @property
    def view(self) -> View | None: ...
    @property
    def health(self) -> RegistryHealth: ...
    @property
    def message(self) -> str: ...
    @property
    def leases(self) -> dict[str, LeaseInfo]: ...


class Status:
    """`member` is this coordinator, `lifecycle` its state, `machine` what it may use, `head` reads the head of a log."""

    def __init__(
        self,
        registry: Registry,
        calls: ReplicaCalls,
        head: ReadHead,
        member: str,
        lifecycle: Callable[[], LifecycleState],
        machine: Callable[[], cluster_pb2.MachineStatus],
    ) -> None:
        self._registry = registry
        self._calls = calls
        self._head = head
        self._member = member
        self._lifecycle = lifecycle
        self._machine = machine

    # --- GetStatus ----------------------------------------------------------------------------------------------------

    async def get(self, collection: str) -> cluster_pb2.GetStatusResponse:
        response = cluster_pb2.GetStatusResponse(
            registry=self._registry.health.value,
            message="" if self._registry.health is RegistryHealth.OK else self._registry.message,
        )
        view = self._registry.view
        if view is None:
            return response
        response.cluster_id = view.snapshot.cluster_id
        response.incarnation, response.revision = view.snapshot.version
        shards = [
            shard
            for name, found in sorted(view.collections_by_name.items())
            if collection in ("", name)
            for shard in view.shards_of(found)
        ]
        servers, heads = await asyncio.gather(self._ask_servers(view), self._read_heads(shards))
        response.members.extend(self._member_status(member, servers) for _, member in sorted(view.members.items()))
        for shard, head in zip(shards, heads, strict=True):
            of = view.collections[shard.collection_uid]
            if not response.collections or response.collections[-1].name != of.name:
                response.collections.add(
                    name=of.name, encoding=of.encoding.name, encoding_requests=of.encoding_requests
                )
            response.collections[-1].shards.append(_shard_status(shard, head, servers))
        return response

    async def _ask_servers(self, view: View) -> ServerStatuses:
        members = [member.id for member in view.members.values() if member.role is Role.SHARD]
        answers = await asyncio.gather(
            *(self._calls.status(member, _TIMEOUT_S) for member in members), return_exceptions=True
        )
        return answered(members, answers)

    async def _read_heads(self, shards: Sequence[Shard]) -> list[Head | None]:
        return await asyncio.gather(*(self._read_head(shard) for shard in shards))

    async def _read_head(self, shard: Shard) -> Head | None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._head(shard.collection_uid, shard.shard)
        except (KintsugiError, TimeoutError):
            return None

    def _member_status(self, member: Member, servers: ServerStatuses) -> cluster_pb2.MemberStatus:
        status = cluster_pb2.MemberStatus(
            id=member.id,
            role=member.role.value,
            address=member.address,
            alive=member.id in self._registry.leases,
            version=member.version,
        )
        if member.id == self._member:
            status.lifecycle, status.resident_bytes = self._lifecycle().value, resident_bytes()
            status.machine.CopyFrom(self._machine())
        elif member.id in servers:
            status.lifecycle = servers[member.id].lifecycle
            status.resident_bytes = servers[member.id].resident_bytes
            status.machine.CopyFrom(servers[member.id].machine)
        return status


def _shard_status(shard: Shard, head: Head | None, servers: ServerStatuses) -> cluster_pb2.ShardStatus:
    replicas = [_replica_status(shard, member, servers) for member in sorted(shard.replicas)]
    return cluster_pb2.ShardStatus(
        shard=shard.shard,
        log_state=shard.log_state.value,
        epoch=shard.epoch,
        log_seq=head.position.seq if head else 0,
        log_bytes=head.bytes if head else 0,
        replicas=replicas,
        message=_shard_message(shard, servers),
    )


def _shard_message(shard: Shard, servers: ServerStatuses) -> str:
    silent = [member for member in awaited(shard) if member not in servers]
    if shard.log_state is LogState.OPEN:
        if silent == list(awaited(shard)):
            return f"no in-sync replica answers; bring back one of {', '.join(silent)}, or accept the loss"
        return ""
    if silent:
        return f"recovery waits for {', '.join(silent)}"
    # Whoever held the recovery lease last knows why; each server tells the last attempt of its own.
    reasons = sorted({one.recovery for one in _hosted(shard, servers) if one.recovery})
    return f"recovery is tried again and again: {'; '.join(reasons)}" if reasons else "recovery is under way"


def _hosted(shard: Shard, servers: ServerStatuses) -> Iterator[shard_pb2.HostedReplica]:
    """What the servers that answered tell of their replicas of a shard."""
    for member in sorted(shard.replicas):
        for one in servers[member].replicas if member in servers else ():
            if (one.replica.collection_uid, one.replica.shard) == (shard.collection_uid, shard.shard):
                yield one


def _replica_status(shard: Shard, member: str, servers: ServerStatuses) -> cluster_pb2.ReplicaStatus:
    status = cluster_pb2.ReplicaStatus()
    hosted = servers[member].replicas if member in servers else ()
    for one in hosted:
        if (one.replica.collection_uid, one.replica.shard) == (shard.collection_uid, shard.shard):
            status.CopyFrom(one.status)
            status.reachable = True
    status.member = member
    status.state = shard.replicas[member].value
    return status
