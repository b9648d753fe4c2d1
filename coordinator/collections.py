"""Creates, finds, encodes anew and deletes collections.

1. The logs of a new collection exist before the registry names it, so that nobody finds it without its logs.
2. Create returns when every replica serves and every living shard server has kept the registry that names it: from
   then on, losing Redis does not lose the collection.
3. Delete removes the collection from the registry first; its logs and documents go afterwards.
4. Encode records what is wanted and returns; the replicas follow the registry.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from coordinator import collection_spec, encodings
from coordinator.deadline import Deadline
from coordinator.placement import place, replicas_held
from coordinator.replica_calls import ReplicaCalls
from coordinator.shard_log import healthy_view
from coordinator.views import Views
from kintsugi.errors import AlreadyExists, KintsugiError, NotFound, Unavailable
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import (
    Collection,
    EpochStart,
    LogState,
    Record,
    ReplicaState,
    Role,
    Shard,
    View,
    field_of,
)
from kintsugi.registry.store import Change, Delete
from kintsugi.registry.watch import RegistryHealth
from kintsugi.v1 import collections_pb2

FIRST_EPOCH = 1

_SERVING = "serving"
_POLL_S = 0.05
_RETRY_DELAY_S = 1.0


class Registry(Protocol):
    """The part of RegistryWatcher that changing collections needs."""

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


class Logs(Protocol):
    """The part of LogWriter that creates and drops logs."""

    async def create(self, uid: str, shard: int, incarnation: int, epoch: int, members: Iterable[str] = ()) -> None: ...
    async def drop(self, uid: str, shard: int) -> None: ...


class Collections:
    """`now_us` is the wall clock in microseconds since the Unix epoch."""

    def __init__(
        self, registry: Registry, views: Views, logs: Logs, calls: ReplicaCalls, now_us: Callable[[], int]
    ) -> None:
        self._registry = registry
        self._views = views
        self._logs = logs
        self._calls = calls
        self._now_us = now_us

    async def create(self, spec: collections_pb2.CollectionSpec, deadline: Deadline) -> Collection:
        defaults = self._views.current().defaults
        wanted = collection_spec.parse(spec, defaults, uid=secrets.token_hex(8), created_at_us=self._now_us())
        view = await current_view(self._registry)
        existing = view.collections_by_name.get(wanted.name)
        created = existing if existing is not None else await self._commit(wanted, view)
        if not collection_spec.is_same(created, wanted):
            raise AlreadyExists(
                f"spec.name is {wanted.name!r}, there is a collection of this name with another specification",
                field="spec.name",
                reason="COLLECTION_EXISTS",
            )
        await self._wait_until_up(created, deadline)
        return created

    async def get(self, name: str, deadline: Deadline) -> Collection:
        collection_spec.check_name(name, "name")
        return (await self._views.collection(name, deadline, "name"))[1]

    async def list_all(self) -> list[Collection]:
        if self._registry.health is RegistryHealth.OK:
            await self._registry.refresh()
        return [collection for _, collection in sorted(self._views.current().collections_by_name.items())]

    async def encode(self, name: str, encoding: collections_pb2.Encoding) -> Collection:
        collection_spec.check_name(name, "name")
        await current_view(self._registry)
        view = await self._registry.update(lambda view: [encodings.asked_for(_named(view, name), encoding)])
        return _named(view, name)

    async def delete(self, name: str) -> None:
        collection_spec.check_name(name, "name")
        await current_view(self._registry)
        deleted: list[Collection] = []

        def remove(view: View) -> Sequence[Record | Delete]:
            collection = _named(view, name)
            deleted[:] = [collection]
            versions = [one for key, found in view.index_versions.items() if key[0] == collection.uid for one in found]
            records: list[Record] = [collection, *view.shards_of(collection), *versions]
            records += [upgrade] if (upgrade := view.upgrades.get(collection.uid)) else []
            return [Delete(field_of(record)) for record in records]

        await self._registry.update(remove)
        await self._drop_logs(deleted[0])

    async def _commit(self, wanted: Collection, view: View) -> Collection:
        """Creates the logs and the records. Returns the collection of this name, which may be somebody else's."""
        placed = place(wanted.shards, wanted.replicas, replicas_held(view, self._live_shard_servers(view)))
        incarnation = view.snapshot.incarnation
        for number, members in enumerate(placed):
            await self._logs.create(wanted.uid, number, incarnation, FIRST_EPOCH, members)
        shards = [_new_shard(wanted.uid, number, members) for number, members in enumerate(placed)]

        def add(current: View) -> Sequence[Record | Delete]:
            if current.snapshot.incarnation != incarnation:
                raise Unavailable("the registry was restored while the collection was created", reason="REGISTRY_MOVED")
            return [] if wanted.name in current.collections_by_name else [wanted, *shards]

        after = await self._registry.update(add)
        found = after.collections_by_name[wanted.name]
        if found.uid != wanted.uid:
            await self._drop_logs(wanted)
        return found

    async def _drop_logs(self, collection: Collection) -> None:
        for number in range(collection.shards):
            # Nobody names this log any more: what stays behind, leftovers.py removes in time.
            with contextlib.suppress(KintsugiError):
                await self._logs.drop(collection.uid, number)

    def _live_shard_servers(self, view: View) -> list[str]:
        leases = self._registry.leases
        return [member.id for member in view.members.values() if member.role is Role.SHARD and member.id in leases]

    # --- Waiting until it is up ---------------------------------------------------------------------------------------

    async def _wait_until_up(self, collection: Collection, deadline: Deadline) -> None:
        missing = "nobody was asked"
        while not deadline.passed:
            view = self._views.current()
            if collection.uid not in view.collections:
                raise NotFound(f"collection {collection.name} was deleted", reason="COLLECTION_NOT_FOUND")
            missing = self._who_lags(view) or await self._who_does_not_serve(view, collection)
            if not missing:
                return
            await asyncio.sleep(min(_POLL_S, deadline.remaining_s))
            await self._registry.refresh()
        raise Unavailable(
            f"collection {collection.name} is created and not up yet: {missing}; repeat the call",
            reason="NOT_UP_IN_TIME",
            retry_delay_s=_RETRY_DELAY_S,
        )

    def _who_lags(self, view: View) -> str:
        leases: Mapping[str, LeaseInfo] = self._registry.leases
        revision = view.snapshot.revision
        lagging = [member for member in self._live_shard_servers(view) if leases[member].revision < revision]
        return f"{', '.join(lagging)} have not seen revision {revision} of the registry" if lagging else ""

    async def _who_does_not_serve(self, view: View, collection: Collection) -> str:
        hosts: dict[str, set[int]] = {}
        for shard in view.shards_of(collection):
            for member, state in shard.replicas.items():
                # A replica that left meanwhile joins again by itself.
                if state is not ReplicaState.OUT_OF_SYNC:
                    hosts.setdefault(member, set()).add(shard.shard)
        answers = await asyncio.gather(*(self._serving_on(member, collection.uid) for member in hosts))
        for (member, shards), serving in zip(hosts.items(), answers, strict=True):
            if isinstance(serving, str):
                return f"{member}: {serving}"
            if not shards <= serving:
                return f"{member} does not serve shard {min(shards - serving)}"
        return ""

    async def _serving_on(self, member: str, uid: str) -> set[int] | str:
        """The shards of the collection that a member serves, or why it does not tell."""
        try:
            status = await self._calls.status(member)
        except KintsugiError as error:
            return error.message
        return {
            hosted.replica.shard
            for hosted in status.replicas
            if hosted.replica.collection_uid == uid and hosted.status.phase == _SERVING
        }


async def current_view(registry: Registry) -> View:
    """The registry, read anew, when it may be changed. A member that acts on a newer one shows that it went back."""
    await registry.refresh()
    view = healthy_view(registry)
    newest = max((lease.revision for lease in registry.leases.values()), default=0)
    if newest > view.snapshot.revision:
        raise Unavailable(
            f"a member acts on revision {newest} of the registry, redis holds {view.snapshot.revision}",
            reason="REGISTRY_BEHIND",
            retry_delay_s=_RETRY_DELAY_S,
        )
    return view


def _named(view: View, name: str) -> Collection:
    collection = view.collections_by_name.get(name)
    if collection is None:
        raise NotFound(f"there is no collection {name}", field="name", reason="COLLECTION_NOT_FOUND")
    return collection


def _new_shard(uid: str, number: int, members: Iterable[str]) -> Shard:
    return Shard(
        collection_uid=uid,
        shard=number,
        epochs=(EpochStart(FIRST_EPOCH, 0),),
        log_state=LogState.OPEN,
        replicas=dict.fromkeys(members, ReplicaState.IN_SYNC),
    )
