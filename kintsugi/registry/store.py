"""The registry in Redis: reading it at one revision, changing it by compare-and-set, restoring it after a loss.

1. Every change is one script: it applies to exactly the registry that was read, or not at all.
2. Every change raises the revision by one and extends a digest, kept per revision in a stream of events, so that two
   histories with the same revision can be told apart.
3. A missing or foreign `cluster` key refuses every change. Only init creates it and only restore replaces it.

Does not judge whether the registry in Redis is the one the cluster had: that is the watcher's part.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kintsugi.errors import AlreadyExists, FailedPrecondition, Unavailable
from kintsugi.keys import Keys
from kintsugi.redis_client import MAX_BLOCK_MS, RedisClient, Script, redis_errors
from kintsugi.registry.leases import LeaseInfo, Leases
from kintsugi.registry.records import Defaults, Record, Snapshot, View, encode_record, field_of

# A member that was away for longer than this many changes cannot check that its revision is in the history.
EVENTS_KEPT = 10_000
# Members that start together contend for the registry; each round lets one of them through.
_UPDATE_ATTEMPTS = 64
_UPDATE_PAUSE_S = 0.05

_READ = Script("kintsugi.registry", "read.lua")
_INIT = Script("kintsugi.registry", "init.lua")
_COMMIT = Script("kintsugi.registry", "commit.lua")
_RESTORE = Script("kintsugi.registry", "restore.lua")


class Conflict(Unavailable):
    """The registry changed since it was read; read it again and decide again."""

    reason = "REGISTRY_MOVED"


@dataclass(frozen=True, slots=True)
class Delete:
    """A change that removes the record of a field."""

    field: str


Change: TypeAlias = Callable[[View], Sequence[Record | Delete]]


@dataclass(frozen=True, slots=True)
class Reading:
    """A read of the registry by somebody who knows a snapshot of it. `known_digest` is the digest that this registry's
    history has at the known revision: None when it no longer tells, or the incarnations differ, and '' when that
    revision never was."""

    snapshot: Snapshot
    known_digest: str | None


class RegistryStore:
    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._leases = Leases(client, keys)
        self._registry_keys = [keys.cluster, keys.revision, keys.registry, keys.events]

    async def init(self, cluster_id: str, defaults: Defaults) -> Snapshot:
        """Creates the cluster. Does nothing when this cluster is there already; AlreadyExists when another one is."""
        args: list[bytes | str] = [cluster_id, field_of(defaults), encode_record(defaults)]
        with redis_errors("creating the registry"):
            status, present = await _INIT.run(self._client, self._registry_keys, args)
        if status == b"foreign":
            raise AlreadyExists(
                f"the namespace {self._keys.namespace} holds cluster {present.decode()}, not {cluster_id}"
            )
        if status == b"remains":
            raise FailedPrecondition(
                f"the namespace {self._keys.namespace} holds a part of a registry without its cluster; "
                "let its members restore it, or remove its keys",
                reason="REGISTRY_MISSING",
            )
        snapshot = await self.read()
        if snapshot is None:
            raise Unavailable("the registry vanished while it was created", reason="REGISTRY_MISSING")
        return snapshot

    async def read(self) -> Snapshot | None:
        """The registry at one revision; None when there is no cluster."""
        reading = await self.read_after(None)
        return None if reading is None else reading.snapshot

    async def read_after(self, known: Snapshot | None) -> Reading | None:
        """Reads, together with what is needed to judge whether the registry continues the known snapshot."""
        args = ["", "", ""] if known is None else [str(known.incarnation), str(known.revision), known.digest]
        with redis_errors("reading the registry"):
            reply = await _READ.run(self._client, self._registry_keys, args)
        if reply is None:
            return None
        cluster_id, incarnation, revision, digest, known_digest, pairs = reply
        if pairs is None and known is not None:
            fields = known.fields
        else:
            fields = {field.decode(): value for field, value in zip(pairs[::2], pairs[1::2], strict=True)}
        snapshot = Snapshot(cluster_id.decode(), int(incarnation), int(revision), digest.decode(), fields)
        return Reading(snapshot, None if known_digest is None else known_digest.decode())

    async def digest_at(self, incarnation: int, revision: int) -> str | None:
        """The digest of a revision in the registry's history; None when it is not kept."""
        event_id = f"{incarnation}-{revision}"
        with redis_errors("reading the registry's events"):
            events: Any = await self._client.xrange(self._keys.events, event_id, event_id)
        digest: bytes | None = events[0][1][b"digest"] if events else None
        return None if digest is None else digest.decode()

    async def commit(self, base: Snapshot, changes: Mapping[str, bytes | None]) -> Snapshot:
        """Sets fields, or removes them when the value is None, if the registry is still `base`. Raises Conflict when it
        moved on, and Unavailable when it is gone, foreign, or the outcome is unknown."""
        args: list[bytes | str | int] = [base.cluster_id, base.incarnation, base.revision, base.digest, EVENTS_KEPT]
        for field, value in sorted(changes.items()):
            args += ["delete", field, b""] if value is None else ["set", field, value]
        with redis_errors("changing the registry"):
            status, *values = await _COMMIT.run(self._client, self._registry_keys, args)
        if status == b"committed":
            fields = {field: value for field, value in {**base.fields, **changes}.items() if value is not None}
            return Snapshot(base.cluster_id, base.incarnation, int(values[0]), values[1].decode(), fields)
        if status == b"moved":
            raise Conflict(f"the registry is at revision {values[0].decode()}, the change was for {base.revision}")
        raise self._not_ours(status, values, base.cluster_id)

    async def update(
        self, change: Change, known: Snapshot | None = None, check: Callable[[Reading], None] | None = None
    ) -> Snapshot:
        """Reads, lets `change` decide what to put or delete, and commits, again when somebody else was faster. Returns
        the registry after it. `change` may be called several times and must not have effects of its own; `check` may
        refuse what was read, compared to what is `known`, by raising."""
        for attempt in range(_UPDATE_ATTEMPTS):
            reading = await self.read_after(known)
            if reading is None:
                raise self._not_ours(b"missing", [], "")
            if check is not None:
                check(reading)
            base = reading.snapshot
            changes = _changes(base, change(base.view()))
            if not changes:
                return base
            try:
                return await self.commit(base, changes)
            except Conflict:
                if attempt == _UPDATE_ATTEMPTS - 1:
                    raise
            await asyncio.sleep(random.uniform(0, _UPDATE_PAUSE_S))  # noqa: S311 - spreads contenders, no secret
        raise AssertionError

    async def restore(self, best: Snapshot, fields: Mapping[str, bytes], token: str) -> Snapshot:
        """Replaces the whole registry by `fields` under the next incarnation, for the holder of the recovery lease, when
        the present one is missing, older than `best` or a fork of it. FailedPrecondition when it is not."""
        args: list[bytes | str | int] = [token, best.cluster_id, best.incarnation, best.revision, best.digest]
        for field, value in sorted(fields.items()):
            args += [field, value]
        keys = [*self._registry_keys, self._keys.recovery]
        with redis_errors("restoring the registry"):
            status, *values = await _RESTORE.run(self._client, keys, args)
        if status == b"restored":
            return Snapshot(best.cluster_id, int(values[0]), int(values[1]), values[2].decode(), dict(fields))
        if status == b"lease":
            raise Unavailable("the recovery lease was lost", reason="RECOVERY_LEASE_LOST")
        if status == b"foreign":
            problem = f"redis holds cluster {values[0].decode()}, this is {best.cluster_id}"
            raise FailedPrecondition(problem, reason="REGISTRY_FOREIGN")
        raise FailedPrecondition(
            f"the registry is at incarnation {int(values[0])}, revision {int(values[1])}, which continues incarnation "
            f"{best.incarnation}, revision {best.revision}",
            reason="REGISTRY_NEWER",
        )

    async def wait_event(self, after: tuple[int, int], timeout_ms: int) -> bool:
        """Waits until the registry has a version after (incarnation, revision); False at the timeout."""
        last = f"{after[0]}-{after[1]}"
        with redis_errors("waiting for the registry's events"):
            events: Any = await self._client.xread(
                {self._keys.events: last}, count=1, block=min(timeout_ms, MAX_BLOCK_MS)
            )
        return bool(events)

    async def renew_lease(self, member_id: str, ttl_ms: int, info: LeaseInfo) -> None:
        await self._leases.renew(member_id, ttl_ms, info)

    async def release_lease(self, member_id: str) -> None:
        await self._leases.release(member_id)

    async def leases(self) -> dict[str, LeaseInfo]:
        return await self._leases.alive()

    async def acquire_recovery(self, owner: str, ttl_ms: int) -> str | None:
        return await self._leases.acquire_recovery(owner, ttl_ms)

    async def renew_recovery(self, token: str, ttl_ms: int) -> bool:
        return await self._leases.renew_recovery(token, ttl_ms)

    async def release_recovery(self, token: str) -> None:
        await self._leases.release_recovery(token)

    def _not_ours(self, status: bytes, values: list[bytes], cluster_id: str) -> Unavailable:
        if status == b"foreign":
            problem = f"the namespace {self._keys.namespace} holds cluster {values[0].decode()}, this is {cluster_id}"
            return Unavailable(problem, reason="REGISTRY_FOREIGN")
        problem = f"the namespace {self._keys.namespace} holds no cluster: its registry was never created or is lost"
        return Unavailable(problem, reason="REGISTRY_MISSING")


def _changes(snapshot: Snapshot, wanted: Sequence[Record | Delete]) -> dict[str, bytes | None]:
    """The fields that differ from the snapshot."""
    changes: dict[str, bytes | None] = {}
    for item in wanted:
        if isinstance(item, Delete):
            changes[item.field] = None
        else:
            changes[field_of(item)] = encode_record(item)
    return {field: value for field, value in changes.items() if snapshot.fields.get(field) != value}
