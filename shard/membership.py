"""How a replica changes what the registry says of it and of its shard. Every change is a compare-and-set that first
looks whether it still makes sense, so it is harmless to call twice or too late.
"""

from collections.abc import Callable, Sequence

import msgspec

from kintsugi.errors import Unavailable
from kintsugi.registry import replicas
from kintsugi.registry.records import LogState, Record, ReplicaState, Shard, View
from kintsugi.registry.watch import RegistryWatcher

Change = Callable[[Shard], Shard | None]


class Membership:
    """The changes of one replica's standing. `member` is the shard server that hosts it."""

    def __init__(self, watcher: RegistryWatcher, member: str, collection_uid: str, shard: int) -> None:
        self._watcher = watcher
        self._member = member
        self._key = (collection_uid, shard)

    async def request_recovery(self, epoch: int) -> None:
        """Stops writes to the shard until recovery has rebuilt its log, unless that has happened since `epoch`."""

        def change(shard: Shard) -> Shard | None:
            if shard.epoch != epoch or shard.log_state is LogState.RECOVERING:
                return None
            return msgspec.structs.replace(shard, log_state=LogState.RECOVERING)

        await self._apply(change)

    async def catching_up(self) -> None:
        """Says that an out-of-sync replica is on its way back."""
        await self._apply(self._joining)

    async def caught_up(self) -> None:
        """Says that a joining replica holds all of the log."""
        await self._apply(
            lambda shard: (
                replicas.caught_up(shard, self._member)
                if shard.replicas.get(self._member) is ReplicaState.JOINING
                else None
            )
        )

    async def diverged(self) -> None:
        """Leaves the in-sync set, unless it must stay: the last one, and any while the log is being recovered."""
        await self._apply(
            lambda shard: replicas.diverged(shard, self._member) if self._member in shard.replicas else None
        )

    async def start_over(self) -> None:
        """Leaves the in-sync set and says that the replica joins again. Unavailable when it must stay: what it holds
        may then not be replaced."""
        await self.diverged()
        view = await self._apply(self._joining)
        shard = view.shards.get(self._key)
        if shard is None or self._member in shard.in_sync:
            state = "gone" if shard is None else str(shard.log_state)
            raise Unavailable(f"the replica still counts as in sync and may not be replaced, its log is {state}")

    def _joining(self, shard: Shard) -> Shard | None:
        if shard.replicas.get(self._member) is not ReplicaState.OUT_OF_SYNC:
            return None
        return replicas.catching_up(shard, self._member)

    async def _apply(self, change: Change) -> View:
        def change_view(view: View) -> Sequence[Record]:
            shard = view.shards.get(self._key)
            changed = change(shard) if shard else None
            return [changed] if changed else []

        return await self._watcher.update(change_view)
