"""Takes replicas without a living member out of the in-sync set, and stops logs from waiting for them.

Every coordinator runs it; compare-and-set makes that harmless. The last in-sync replica of a shard never leaves. Also
forgets coordinators that have been gone for long: each is one address that does not come back. Acts only on a healthy
registry.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from kintsugi.errors import KintsugiError
from kintsugi.registry.records import Record, ReplicaState, Role, Shard, View, field_of
from kintsugi.registry.replicas import lease_lost
from kintsugi.registry.store import Change, Delete
from kintsugi.registry.watch import RegistryHealth

_INTERVAL_S = 1.0
# Positions of members that never were replicas are rare: logs are looked through once in so many sweeps.
_SWEEPS_PER_SEARCH = 30


class Registry(Protocol):
    """The part of RegistryWatcher that housekeeping needs."""

    @property
    def view(self) -> View | None: ...
    @property
    def health(self) -> RegistryHealth: ...
    def seconds_without_lease(self, member_id: str) -> float: ...
    async def update(self, change: Change) -> View: ...


class Positions(Protocol):
    """The part of LogPositions that housekeeping needs."""

    async def all(self, uid: str, shard: int) -> dict[str, int]: ...
    async def drop(self, uid: str, shard: int, member: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a member may be without lease: a shard server before its replicas leave the in-sync set, a coordinator
    before it is forgotten."""

    shard_server_s: float
    coordinator_s: float = 600.0


class Housekeeping:
    def __init__(self, registry: Registry, positions: Positions, patience: Patience) -> None:
        self._registry = registry
        self._positions = positions
        self._patience = patience
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
            if search_all or any(is_not_waited_for(shard, member, gone) for member in shard.replicas):
                await self._drop_positions(shard, gone)

    async def _drop_positions(self, shard: Shard, gone: Collection[str]) -> None:
        for member in await self._positions.all(shard.collection_uid, shard.shard):
            if is_not_waited_for(shard, member, gone):
                await self._positions.drop(shard.collection_uid, shard.shard, member)

    def _is_gone(self, member: str, role: Role) -> bool:
        patience = self._patience.shard_server_s if role is Role.SHARD else self._patience.coordinator_s
        return self._registry.seconds_without_lease(member) >= patience


def changes(view: View, gone: Collection[str]) -> list[Record | Delete]:
    """What the registry should say of members that are gone."""
    changed: list[Record | Delete] = []
    for _, shard in sorted(view.shards.items()):
        after = shard
        for member in sorted(set(gone) & set(shard.replicas)):
            after = lease_lost(after, member) or after
        if after != shard:
            changed.append(after)
    coordinators = [view.members[member] for member in sorted(gone) if member in view.members]
    changed += [Delete(field_of(member)) for member in coordinators if member.role is Role.COORDINATOR]
    return changed


def is_not_waited_for(shard: Shard, member: str, gone: Collection[str]) -> bool:
    """Whether the log need not be kept for a member: it is no replica, or gone and out of sync. The position of a living
    one may be the hold with which it starts to join."""
    state = shard.replicas.get(member)
    return state is None or (state is ReplicaState.OUT_OF_SYNC and member in gone)
