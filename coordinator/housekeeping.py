"""Takes replicas without a living member out of the in-sync set, and stops logs from waiting for replicas.

1. The last in-sync replica of a shard never leaves. When all are gone none leaves: nobody knows which holds most, and
   recovery must hear each of them.
2. A log waits for its in-sync replicas, and for joining ones up to half of its byte bound. It never waits for one that
   is out of sync, however alive its server is: what it lacks it can copy.
3. A position is dropped only as it was read, and only by a registry that was read after it. What changes in between
   costs a joining replica another start, and nobody a write.

Every coordinator runs it; compare-and-set makes that harmless. Also forgets coordinators that have been gone for long:
each is one address that does not come back. Acts only on a healthy registry.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from coordinator.status import ReadHead
from kintsugi.errors import KintsugiError
from kintsugi.log.read import Head
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Record, ReplicaState, Role, Shard, View, field_of
from kintsugi.registry.replicas import lease_lost
from kintsugi.registry.store import Change, Delete
from kintsugi.registry.watch import RegistryHealth
from kintsugi.telemetry import LogEvent, logger

_log = logger("housekeeping")

_INTERVAL_S = 1.0
# Positions of members that never were replicas are rare: logs are looked through once in so many sweeps.
_SWEEPS_PER_SEARCH = 30


class Registry(Protocol):
    """The part of RegistryWatcher that housekeeping needs."""

    @property
    def view(self) -> View | None: ...
    @property
    def health(self) -> RegistryHealth: ...
    @property
    def leases(self) -> dict[str, LeaseInfo]: ...
    def seconds_without_lease(self, member_id: str) -> float: ...
    async def refresh(self) -> None: ...
    async def update(self, change: Change) -> View: ...


class Positions(Protocol):
    """The part of LogPositions that housekeeping needs."""

    async def all(self, uid: str, shard: int) -> dict[str, int]: ...
    async def drop(self, uid: str, shard: int, member: str, at: int | None = None) -> bool: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a member may be without lease: a shard server before its replicas leave the in-sync set, a coordinator
    before it is forgotten."""

    shard_server_s: float
    coordinator_s: float = 600.0


class Housekeeping:
    """`head` reads the head of a log, `max_log_bytes` is what one log may hold."""

    def __init__(
        self, registry: Registry, positions: Positions, head: ReadHead, patience: Patience, *, max_log_bytes: int
    ) -> None:
        self._registry = registry
        self._positions = positions
        self._head = head
        self._patience = patience
        self._max_log_bytes = max_log_bytes
        self._sweeps = 0

    async def run(self) -> None:
        """Sweeps every second until cancelled; what fails is tried again at the next sweep."""
        while True:
            with suppress(KintsugiError):
                await self.sweep()
            await asyncio.sleep(_INTERVAL_S)

    async def sweep(self) -> None:
        view = self._registry.view
        if view is None or self._registry.health is not RegistryHealth.OK:
            return
        gone = {member.id for member in view.members.values() if self._is_gone(member.id, member.role)}
        if changes(view, gone):
            view = await self._registry.update(lambda current: changes(current, gone))
        search_all = self._sweeps % _SWEEPS_PER_SEARCH == 0
        self._sweeps += 1
        for shard in view.shards.values():
            if search_all or any(state is not ReplicaState.IN_SYNC for state in shard.replicas.values()):
                await self._drop_positions(shard)

    async def _drop_positions(self, shard: Shard) -> None:
        uid, number = shard.collection_uid, shard.shard
        held = await self._positions.all(uid, number)
        if any(not is_waited_for(shard, member) for member in held):
            current = await self._current(shard)
            for member in [member for member in held if current and not is_waited_for(current, member)]:
                await self._positions.drop(uid, number, member, held.pop(member))
        if any(shard.replicas.get(member) is ReplicaState.JOINING for member in held):
            await self._break_hold(shard, held)

    async def _break_hold(self, shard: Shard, held: Mapping[str, int]) -> None:
        uid, number = shard.collection_uid, shard.shard
        head = await self._head(uid, number)
        # With nobody to copy from, the log is all that a joining replica has.
        if head is None or not set(shard.in_sync) & set(self._registry.leases):
            return
        member = hold_to_break(shard, held, head, self._max_log_bytes)
        if member and await self._positions.drop(uid, number, member, held[member]):
            _log.warning(
                LogEvent.HOLD_BROKEN,
                collection_uid=uid,
                shard=number,
                member=member,
                seq=held[member],
                bytes=head.bytes,
            )

    async def _current(self, shard: Shard) -> Shard | None:
        """The shard as the registry has it now; None when it is gone or the registry is not well."""
        await self._registry.refresh()
        view = self._registry.view
        if view is None or self._registry.health is not RegistryHealth.OK:
            return None
        return view.shards.get((shard.collection_uid, shard.shard))

    def _is_gone(self, member: str, role: Role) -> bool:
        patience = self._patience.shard_server_s if role is Role.SHARD else self._patience.coordinator_s
        return self._registry.seconds_without_lease(member) >= patience


def changes(view: View, gone: Collection[str]) -> list[Record | Delete]:
    """What the registry should say of members that are gone."""
    changed: list[Record | Delete] = []
    for _, shard in sorted(view.shards.items()):
        after = shard
        all_gone = set(shard.in_sync) <= set(gone)
        for member in sorted(set(gone) & set(shard.replicas)):
            if not (all_gone and member in shard.in_sync):
                after = lease_lost(after, member) or after
        if after != shard:
            changed.append(after)
    coordinators = [view.members[member] for member in sorted(gone) if member in view.members]
    changed += [Delete(field_of(member)) for member in coordinators if member.role is Role.COORDINATOR]
    return changed


def is_waited_for(shard: Shard, member: str) -> bool:
    """Whether the log is kept for a member: it has a replica that is in sync or joins."""
    return shard.replicas.get(member, ReplicaState.OUT_OF_SYNC) is not ReplicaState.OUT_OF_SYNC


def hold_to_break(shard: Shard, held: Mapping[str, int], head: Head, max_log_bytes: int) -> str:
    """The joining member that alone keeps the log beyond half of its byte bound; empty when there is none. The other
    half is for what arrives while the in-sync replicas are away."""
    if not held or 2 * head.bytes <= max_log_bytes:
        return ""
    lowest = min(held, key=lambda member: held[member])
    in_sync = [held[member] for member in shard.in_sync if member in held]
    # An earlier break shows in the log at the next append only. The log begins with the entry that ends at the lowest.
    keeps_the_log = held[lowest] <= head.first_end_seq and bool(in_sync) and held[lowest] < min(in_sync)
    return lowest if keeps_the_log and shard.replicas.get(lowest) is ReplicaState.JOINING else ""
