"""Shows the whole cluster as this coordinator knows it: the registry, every member asked, the head of every log.

Never fails for what it reports: a member or log that does not answer is shown as such. Also accepts the loss of what
only unreachable replicas hold, after asking all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from coordinator.replica_calls import ReplicaCalls
from coordinator.shard_log import healthy_view
from kintsugi.errors import FailedPrecondition, KintsugiError, NotFound
from kintsugi.internal.v1 import shard_pb2
from kintsugi.lifecycle import LifecycleState
from kintsugi.log.read import Head
from kintsugi.process_memory import resident_bytes
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import LogState, Member, Record, Role, Shard, View
from kintsugi.registry.replicas import awaited, given_up
from kintsugi.registry.store import Change, Delete
from kintsugi.registry.watch import RegistryHealth
from kintsugi.v1 import cluster_pb2

ReadHead = Callable[[str, int], Awaitable[Head | None]]
ServerStatuses = Mapping[str, shard_pb2.GetServerStatusResponse]
Answer = TypeVar("Answer")

_TIMEOUT_S = 1.0


class Registry(Protocol):
    """The part of RegistryWatcher that the status shows and AcceptLoss changes."""

    @property
    def view(self) -> View | None: ...
    @property
    def health(self) -> RegistryHealth: ...
    @property
    def message(self) -> str: ...
    @property
    def leases(self) -> dict[str, LeaseInfo]: ...
    async def refresh(self) -> None: ...
    async def update(self, change: Change) -> View: ...
    def subscribe(self, callback: Callable[[], None]) -> object: ...


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
            name = view.collections[shard.collection_uid].name
            if not response.collections or response.collections[-1].name != name:
                response.collections.add(name=name)
            response.collections[-1].shards.append(_shard_status(shard, head, servers))
        return response

    async def _ask_servers(self, view: View) -> ServerStatuses:
        members = [member.id for member in view.members.values() if member.role is Role.SHARD]
        answers = await asyncio.gather(
            *(self._calls.status(member, _TIMEOUT_S) for member in members), return_exceptions=True
        )
        return _answered(members, answers)

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

    # --- AcceptLoss ---------------------------------------------------------------------------------------------------

    async def accept_loss(self, collection: str, number: int) -> cluster_pb2.AcceptLossResponse:
        await self._registry.refresh()
        shard = _find_shard(healthy_view(self._registry), collection, number)
        if shard.log_state is not LogState.RECOVERING:
            raise FailedPrecondition(
                f"shard {number} of collection {collection} is {shard.log_state.value}, nothing waits for recovery",
                reason="NOT_RECOVERING",
            )
        positions = await self._positions(shard)
        if not positions:
            raise FailedPrecondition(
                f"no replica of shard {number} of collection {collection} can be reached, nobody could recover it",
                reason="NO_REPLICA_REACHABLE",
            )
        silent = sorted(set(shard.in_sync) - set(positions))
        key = (shard.collection_uid, number)

        def give_up(view: View) -> Sequence[Record | Delete]:
            current = view.shards.get(key)
            if current is None or current.log_state is not LogState.RECOVERING:
                return []
            after = current
            for member in silent:
                if member in after.in_sync:
                    after = given_up(after, member)
            return [after] if after != current else []

        after = (await self._registry.update(give_up)).shards.get(key, shard)
        members = sorted({*silent, *after.given_up})
        return cluster_pb2.AcceptLossResponse(
            given_up_members=members,
            kept_seq=max(positions.values()),
            message=_loss_message(collection, number, members, max(positions.values())),
        )

    async def _positions(self, shard: Shard) -> dict[str, int]:
        """The durable sequence numbers of the replicas that answer."""
        replica = shard_pb2.ReplicaRef(collection_uid=shard.collection_uid, shard=shard.shard)
        members = sorted(shard.replicas)
        answers = await asyncio.gather(
            *(self._calls.position(member, replica) for member in members), return_exceptions=True
        )
        return {member: answer.durable.seq for member, answer in _answered(members, answers).items()}


def _answered(members: Sequence[str], answers: Sequence[Answer | BaseException]) -> dict[str, Answer]:
    """The answers by member, without those who could not be reached. Defects of ours are raised."""
    answered = {}
    for member, answer in zip(members, answers, strict=True):
        if not isinstance(answer, BaseException):
            answered[member] = answer
        elif not isinstance(answer, KintsugiError):
            raise answer
    return answered


def _find_shard(view: View, collection: str, number: int) -> Shard:
    found = view.collections_by_name.get(collection)
    if found is None:
        raise NotFound(f"there is no collection {collection}", field="collection", reason="COLLECTION_NOT_FOUND")
    if number >= found.shards:
        raise NotFound(
            f"shard is {number}, collection {collection} has {found.shards} shards",
            field="shard",
            reason="NO_SUCH_SHARD",
        )
    return view.shards[found.uid, number]


def _loss_message(collection: str, number: int, members: Sequence[str], kept_seq: int) -> str:
    if not members:
        return f"shard {number} of collection {collection}: every in-sync replica can be reached, nothing is given up"
    return (
        f"shard {number} of collection {collection} recovers without {', '.join(members)}: "
        f"writes after sequence number {kept_seq} that only they hold are lost"
    )


def _shard_status(shard: Shard, head: Head | None, servers: ServerStatuses) -> cluster_pb2.ShardStatus:
    replicas = [_replica_status(shard, member, servers) for member in sorted(shard.replicas)]
    return cluster_pb2.ShardStatus(
        shard=shard.shard,
        log_state=shard.log_state.value,
        epoch=shard.epoch,
        log_seq=head.position.seq if head else 0,
        log_bytes=head.bytes if head else 0,
        replicas=replicas,
        message=_recovery_message(shard, servers),
    )


def _recovery_message(shard: Shard, servers: ServerStatuses) -> str:
    if shard.log_state is LogState.OPEN:
        return ""
    silent = [member for member in awaited(shard) if member not in servers]
    if silent:
        return f"recovery waits for {', '.join(silent)}"
    return "recovery is under way"


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
