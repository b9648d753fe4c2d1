"""Appends groups of requests to the logs of shards, and only where that is safe.

1. Nothing is appended unless the registry is well, the shard's log is open and its floor is known.
2. A refusal because the registry moved on is tried again with the new registry, one because Redis restarted with a new
   floor; nothing was written then.
3. After any other failure the floor is forgotten, so that the replicas are asked again before the next append.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from coordinator.deadline import Deadline
from coordinator.floor import Floors
from coordinator.operations import ShardKey
from kintsugi import failpoints
from kintsugi.errors import KintsugiError, NotFound, Unavailable
from kintsugi.log.append import AppendRequest, AppendResult, LogTarget
from kintsugi.registry.records import LogState, Shard, View
from kintsugi.registry.watch import RegistryHealth

Outcome = AppendResult | KintsugiError

# Refusals that a newer registry may explain: the collection was created anew, or its log recovered.
_MOVED = {"LOG_MISSING", "EPOCH_MOVED", "LOG_RESTORING"}
_SERVER_CHANGED = "SERVER_CHANGED"
_ATTEMPTS = 3
_RETRY_DELAY_S = 1.0


class AppendToLog(Protocol):
    """LogWriter.append."""

    async def __call__(
        self, target: LogTarget, requests: Sequence[AppendRequest], timeout_s: float
    ) -> list[Outcome]: ...


class Registry(Protocol):
    """The part of RegistryWatcher that writing needs."""

    @property
    def view(self) -> View | None: ...
    @property
    def health(self) -> RegistryHealth: ...
    @property
    def message(self) -> str: ...
    async def refresh(self) -> None: ...
    def subscribe(self, callback: Callable[[], None]) -> object: ...


class ShardLogs:
    def __init__(self, registry: Registry, floors: Floors, append_to_log: AppendToLog) -> None:
        self._registry = registry
        self._floors = floors
        self._append_to_log = append_to_log
        registry.subscribe(self._on_registry_change)

    def writable(self, key: ShardKey) -> tuple[View, Shard]:
        """The registry and the shard when the shard takes writes. Raises Unavailable or NotFound."""
        view = healthy_view(self._registry)
        shard = view.shards.get(key)
        if shard is None:
            raise NotFound(f"shard {key[1]} of collection {key[0]} is gone", reason="COLLECTION_NOT_FOUND")
        if shard.log_state is not LogState.OPEN:
            raise Unavailable(
                f"the log of shard {key[1]} is recovering, writes are refused until it is done",
                reason="LOG_RECOVERING",
                retry_delay_s=_RETRY_DELAY_S,
            )
        return view, shard

    async def append(self, key: ShardKey, requests: Sequence[AppendRequest], deadline: Deadline) -> list[Outcome]:
        """One result or error per request. Raises when nothing was written, or nothing is known of it."""
        for attempt in range(1, _ATTEMPTS + 1):
            view, shard = self.writable(key)
            try:
                return await self._append_once(key, requests, deadline)
            except KintsugiError as error:
                self._floors.forget(key)
                if error.reason not in {*_MOVED, _SERVER_CHANGED} or attempt == _ATTEMPTS:
                    raise
                await self._registry.refresh()
                current = self._registry.view
                moved = current is None or (current.shards.get(key), current.snapshot.incarnation) != (
                    shard,
                    view.snapshot.incarnation,
                )
                if error.reason in _MOVED and not moved:
                    raise
        raise AssertionError

    async def _append_once(self, key: ShardKey, requests: Sequence[AppendRequest], deadline: Deadline) -> list[Outcome]:
        floor = await self._floors.get(key)
        self.writable(key)  # asking replicas took time
        target = LogTarget(*key, floor.incarnation, floor.epoch, floor.position, floor.server)
        failpoints.hit("writes.before_append")
        outcomes = await self._append_to_log(target, requests, max(deadline.remaining_s, 0.001))
        failpoints.hit("writes.after_append")
        written = [outcome.last for outcome in outcomes if isinstance(outcome, AppendResult)]
        if written:
            self._floors.raise_to(key, floor, max(written, key=lambda position: position.seq))
        return outcomes

    def _on_registry_change(self) -> None:
        # Redis was away, or is not the one we know: it may have lost what the floors rest on.
        if self._registry.health is not RegistryHealth.OK:
            self._floors.forget_all()


def healthy_view(registry: Registry) -> View:
    """The registry when it may be acted on. Raises Unavailable."""
    if registry.view is None or registry.health is not RegistryHealth.OK:
        raise Unavailable(
            f"the registry is {registry.health.value}, nothing is written: {registry.message}",
            reason=f"REGISTRY_{registry.health.name}",
            retry_delay_s=_RETRY_DELAY_S,
        )
    return registry.view
