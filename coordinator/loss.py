"""AcceptLoss: has the log of a shard rebuilt without replicas that are lost for good, on an operator's word.

    ask every replica -> is it lost, and is there nobody who needs no recovery? -> give up the silent ones, by name

1. A recovery that waits goes on without the in-sync replicas that do not answer.
2. An open shard is set to recovering only when all of its in-sync replicas are lost: their servers hold no lease, or say
   that they failed. Nor while another replica can still follow the log, which loses nothing.
3. When nobody in sync is left, whoever answers now is who the recovery must hear. So what is kept is what the answer
   says, or more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from coordinator.replica_calls import ReplicaCalls, answered
from coordinator.shard_log import healthy_view
from kintsugi.errors import FailedPrecondition, KintsugiError, NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.faults import LogFault
from kintsugi.log.read import Head
from kintsugi.position import Position
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import LogState, Record, Shard, View
from kintsugi.registry.replicas import awaited, given_up
from kintsugi.registry.store import Change, Delete
from kintsugi.registry.watch import RegistryHealth
from kintsugi.v1 import cluster_pb2

_FAILED = "failed"


class Registry(Protocol):
    """The part of RegistryWatcher that AcceptLoss needs."""

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


class VerifyLog(Protocol):
    """LogReader.verify for the log of a shard."""

    def __call__(self, uid: str, shard: int, incarnation: int, epoch: int, position: Position) -> Awaitable[Head]: ...


class AcceptLoss:
    def __init__(self, registry: Registry, calls: ReplicaCalls, verify: VerifyLog) -> None:
        self._registry = registry
        self._calls = calls
        self._verify = verify

    async def accept(self, collection: str, number: int) -> cluster_pb2.AcceptLossResponse:
        await self._registry.refresh()
        view = healthy_view(self._registry)
        shard = _find_shard(view, collection, number)
        title = f"shard {number} of collection {collection}"
        positions = await self._positions(shard)
        if shard.log_state is LogState.OPEN:
            await self._check_lost(shard, title, positions)
        if not positions:
            raise FailedPrecondition(
                f"no replica of {title} can be reached, nobody could recover it", reason="NO_REPLICA_REACHABLE"
            )
        if shard.log_state is LogState.OPEN:
            await self._check_nobody_follows(view, shard, title, positions)
        after = await self._give_up(shard, title, positions)
        members = sorted({*(set(shard.in_sync) - set(positions)), *after.given_up})
        kept_seq = max(positions[member].seq for member in awaited(after) if member in positions)
        return cluster_pb2.AcceptLossResponse(
            given_up_members=members, kept_seq=kept_seq, message=_message(title, members, kept_seq)
        )

    async def _positions(self, shard: Shard) -> dict[str, Position]:
        """What the replicas hold durably that answer."""
        replica = shard_pb2.ReplicaRef(collection_uid=shard.collection_uid, shard=shard.shard)
        members = sorted(shard.replicas)
        answers = await asyncio.gather(
            *(self._calls.position(member, replica) for member in members), return_exceptions=True
        )
        return {
            member: Position(answer.durable.epoch, answer.durable.seq, answer.durable.digest)
            for member, answer in answered(members, answers).items()
        }

    async def _check_lost(self, shard: Shard, title: str, positions: Mapping[str, Position]) -> None:
        """Refuses unless every in-sync replica is lost."""
        for member in shard.in_sync:
            if member in positions and not await self._says_that_it_failed(shard, member):
                raise FailedPrecondition(
                    f"{title} is open and its in-sync replica on {member} answers, nothing waits for recovery",
                    reason="NOT_RECOVERING",
                )
        for member in shard.in_sync:
            if member in self._registry.leases and not await self._says_that_it_failed(shard, member):
                raise FailedPrecondition(
                    f"{title} is open and the server of its in-sync replica, {member}, holds a lease: wait until it "
                    "answers, or stop it",
                    reason="REPLICA_ALIVE",
                )

    async def _says_that_it_failed(self, shard: Shard, member: str) -> bool:
        try:
            server = await self._calls.status(member)
        except KintsugiError:
            return False
        ref = (shard.collection_uid, shard.shard)
        return any(
            (one.replica.collection_uid, one.replica.shard) == ref and one.status.phase == _FAILED
            for one in server.replicas
        )

    async def _check_nobody_follows(
        self, view: View, shard: Shard, title: str, positions: Mapping[str, Position]
    ) -> None:
        """Refuses while the log still holds what another replica lacks: that one gets in sync by itself."""
        for member, position in positions.items():
            try:
                await self._verify(shard.collection_uid, shard.shard, view.snapshot.incarnation, shard.epoch, position)
            except LogFault:
                continue
            raise FailedPrecondition(
                f"{title}: the log holds all that the replica on {member} lacks, it will be in sync by itself; see its "
                "message in the status",
                reason="REPLICA_FOLLOWS",
            )

    async def _give_up(self, shard: Shard, title: str, positions: Mapping[str, Position]) -> Shard:
        """The shard after the silent replicas were given up: those in sync, and when none of these is left, all."""
        key = (shard.collection_uid, shard.shard)

        def change(view: View) -> Sequence[Record | Delete]:
            current = view.shards.get(key)
            if current is None or (current.log_state, current.in_sync) != (shard.log_state, shard.in_sync):
                raise Unavailable(f"{title} changed in the registry meanwhile; look again", reason="REGISTRY_MOVED")
            nobody_left = not set(positions) & set(current.in_sync) - set(current.given_up)
            after = msgspec.structs.replace(current, log_state=LogState.RECOVERING)
            for member in sorted(set(current.replicas) - set(positions)):
                if member in current.in_sync or nobody_left:
                    after = given_up(after, member)
            if not awaited(after):  # who was given up before and is back holds more than nobody
                after = msgspec.structs.replace(after, given_up=tuple(sorted(set(after.given_up) - set(positions))))
            return [after] if after != current else []

        return (await self._registry.update(change)).shards[key]


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


def _message(title: str, members: Sequence[str], kept_seq: int) -> str:
    if not members:
        return (
            f"{title}: every in-sync replica can be reached, none is given up; the log goes on from what they hold, "
            f"sequence number {kept_seq}"
        )
    return f"{title} recovers without {', '.join(members)}: writes after sequence number {kept_seq} are lost"
