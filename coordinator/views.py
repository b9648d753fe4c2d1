"""What readers know of the cluster: the last registry view, refreshed when there is a reason, never waited for long.

Reading goes on from the last view while Redis is down. A refresh is shared by all who want one, bounded in time, and
not repeated at once when it changed nothing, so that requests for unknown names cannot load Redis.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from coordinator.deadline import Clock, Deadline
from kintsugi import limits
from kintsugi.errors import InvalidArgument, NotFound, Unavailable
from kintsugi.registry.records import Collection, View

# The most that a read waits for Redis, and how long it then believes what it has.
_REFRESH_TIMEOUT_S = 0.5
_REFRESH_PAUSE_S = 0.5
_PAUSE_AFTER_TIMEOUT_S = 5.0


class Lease(Protocol):
    @property
    def documents(self) -> Mapping[str, int]: ...


class Registry(Protocol):
    """The part of RegistryWatcher that reading needs."""

    @property
    def view(self) -> View | None: ...
    @property
    def leases(self) -> Mapping[str, Lease]: ...
    async def refresh(self) -> object: ...
    def subscribe(self, callback: Callable[[], None]) -> object: ...


class Views:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._refreshing: asyncio.Task[object] | None = None
        self._believed_until = float("-inf")
        # Documents by (collection uid, shard), as replicas said when they answered.
        self._counted: dict[tuple[str, int], int] = {}
        # Documents by "uid/shard", as leases told while they lasted.
        self._leased: dict[str, int] = {}

    def current(self) -> View:
        view = self._registry.view
        if view is None:
            raise Unavailable("this coordinator has not read the registry yet")
        return view

    async def refreshed(self, deadline: Deadline, *, revision: int = 0) -> View:
        """The view after a refresh, or the last one when the refresh fails, takes too long, or was tried just now.
        A `revision` above that of the last view means that there certainly is a newer one."""
        known = self._registry.view
        if self._clock() < self._believed_until and (known is None or revision <= known.snapshot.revision):
            return self.current()
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        _, unfinished = await asyncio.wait(
            [self._refreshing], timeout=min(_REFRESH_TIMEOUT_S, deadline.remaining_s / 2)
        )
        if self._registry.view is known:
            self._believed_until = self._clock() + (_PAUSE_AFTER_TIMEOUT_S if unfinished else _REFRESH_PAUSE_S)
        return self.current()

    async def collection(self, name: str, deadline: Deadline, field: str = "collection") -> tuple[View, Collection]:
        """The collection that a field of a request names, which another coordinator may have created a moment ago.
        Only obviously malformed names are told from unknown ones."""
        if not 1 <= len(name) <= limits.MAX_NAME_CHARACTERS:
            raise InvalidArgument(
                field, f"has {len(name)} characters", f"must have 1 to {limits.MAX_NAME_CHARACTERS} characters"
            )
        view = self.current()
        if name not in view.collections_by_name:
            view = await self.refreshed(deadline)
        found = view.collections_by_name.get(name)
        if found is None:
            raise NotFound(f"there is no collection {name}", field=field, reason="COLLECTION_NOT_FOUND")
        return view, found

    def note_documents(self, uid: str, shard: int, documents: int) -> None:
        self._counted[uid, shard] = documents

    def last_known_documents(self, uid: str, shard: int) -> int:
        """What the shard held when a replica of it was last heard of, 0 if never."""
        view = self._registry.view
        if view is not None and len(self._counted) > 2 * len(view.shards):
            self._counted = {key: count for key, count in self._counted.items() if key in view.shards}
        self.note_leases()
        return self._counted.get((uid, shard), self._leased.get(f"{uid}/{shard}", 0))

    def note_leases(self) -> None:
        """Remembers what the leases tell: a server's lease ends soon after the server."""
        leased: dict[str, int] = {}
        for lease in self._registry.leases.values():
            for field, documents in lease.documents.items():
                leased[field] = max(documents, leased.get(field, 0))
        known = self._registry.view.shards if self._registry.view is not None else {}
        fields = {f"{uid}/{shard}" for uid, shard in known}
        self._leased = {field: count for field, count in {**self._leased, **leased}.items() if field in fields}

    async def _refresh(self) -> object:
        try:
            return await self._registry.refresh()
        except Unavailable:
            return None
