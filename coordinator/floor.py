"""The floor of each shard's log: how far the log must reach before anything may be appended to it (DESIGN 3a).

1. Before the first append of an (incarnation, epoch), and again after Redis restarted, failed over or was doubtful, all
   in-sync replicas tell their position; the highest is the floor. Without all of them there is none. Who is in sync the
   registry is asked anew: one that we do not know of yet may have acknowledged what the log just lost.
2. A replica that knows a newer registry than we do shows that ours went back: then there is no floor either.
3. What this process appends raises the floor, so that a log that loses it is noticed at the next append.

Knows nothing of requests: the append script compares log and floor.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from coordinator.operations import ShardKey
from kintsugi.errors import KintsugiError, NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.position import START, Position
from kintsugi.registry.records import Shard, View

AskPosition = Callable[[str, shard_pb2.ReplicaRef], Awaitable[shard_pb2.GetPositionResponse]]
Version = tuple[int, int]

# Each round means that the registry moved on while replicas were asked.
_ROUNDS = 3
_RETRY_DELAY_S = 1.0


@dataclass(frozen=True, slots=True)
class Floor:
    """`position` holds for the log of this incarnation and epoch, in this life of the server that holds it."""

    incarnation: int
    epoch: int
    server: str
    position: Position


class Floors:
    """`view` gives the present registry, `refresh` reads it now, `ask` asks one member for its position, `server` tells
    which life of which server holds a log."""

    def __init__(
        self,
        view: Callable[[], View],
        refresh: Callable[[], Awaitable[object]],
        ask: AskPosition,
        server: Callable[[str, int], Awaitable[str]],
    ) -> None:
        self._view = view
        self._refresh = refresh
        self._ask = ask
        self._server = server
        self._floors: dict[ShardKey, Floor] = {}
        self._forgotten = 0

    async def get(self, key: ShardKey) -> Floor:
        """The floor for the present registry; asks the replicas when it is not known. Raises Unavailable."""
        for _ in range(_ROUNDS):
            view, shard = self._view_of(key)
            known = self._floors.get(key)
            if known is not None and (known.incarnation, known.epoch) == (view.snapshot.incarnation, shard.epoch):
                return known
            forgotten = self._forgotten
            # Before the registry and the replicas: who acknowledged something in an earlier life of the server was in
            # sync, and it is in their positions; what was written in this one is in its log.
            server = await self._server(*key)
            await self._refresh()
            view, shard = self._view_of(key)
            position, newest = await self._highest(shard)
            if newest > view.snapshot.version:
                await self._catch_up(newest)
            elif forgotten == self._forgotten:
                self._floors[key] = Floor(view.snapshot.incarnation, shard.epoch, server, position)
        raise Unavailable(
            f"the registry keeps moving while replicas of shard {key[1]} are asked",
            reason="REGISTRY_MOVED",
            retry_delay_s=_RETRY_DELAY_S,
        )

    def raise_to(self, key: ShardKey, floor: Floor, position: Position) -> None:
        """After an append above `floor`, unless it was forgotten meanwhile."""
        if self._floors.get(key) is floor and position.seq > floor.position.seq:
            self._floors[key] = replace(floor, position=position)

    def forget(self, key: ShardKey) -> None:
        self._forgotten += 1
        self._floors.pop(key, None)

    def forget_all(self) -> None:
        self._forgotten += 1
        self._floors.clear()

    def _view_of(self, key: ShardKey) -> tuple[View, Shard]:
        view = self._view()
        shard = view.shards.get(key)
        if shard is None:
            raise NotFound(f"shard {key[1]} of collection {key[0]} is gone", reason="COLLECTION_NOT_FOUND")
        return view, shard

    async def _highest(self, shard: Shard) -> tuple[Position, Version]:
        """The highest durable position among the in-sync replicas, and the newest registry they know."""
        replica = shard_pb2.ReplicaRef(collection_uid=shard.collection_uid, shard=shard.shard)
        answers = await asyncio.gather(
            *(self._ask(member, replica) for member in shard.in_sync), return_exceptions=True
        )
        position, newest = START, (0, 0)
        for member, answer in zip(shard.in_sync, answers, strict=True):
            if isinstance(answer, KintsugiError):
                raise Unavailable(
                    f"in-sync replica {member} of shard {shard.shard} does not tell its position ({answer.message}), "
                    "without it nobody knows whether the log is whole",
                    reason="REPLICA_SILENT",
                    retry_delay_s=_RETRY_DELAY_S,
                ) from answer
            if isinstance(answer, BaseException):
                raise answer
            durable = answer.durable
            if durable.seq > position.seq:
                position = Position(durable.epoch, durable.seq, durable.digest)
            newest = max(newest, (answer.registry_incarnation, answer.registry_revision))
        return position, newest

    async def _catch_up(self, newest: Version) -> None:
        await self._refresh()
        ours = self._view().snapshot.version
        if ours < newest:
            raise Unavailable(
                f"a replica knows the registry at incarnation {newest[0]}, revision {newest[1]}, "
                f"redis holds incarnation {ours[0]}, revision {ours[1]}: it went back and must be restored",
                reason="REGISTRY_BEHIND",
                retry_delay_s=_RETRY_DELAY_S,
            )
