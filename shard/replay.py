"""WRITE STORY of a shard server: follow the log of a shard into a replica's database.

    wait until the registry says the log is open -> judge where we stand towards it -> follow it, batch by batch

Invariants:
1. A record is applied only if its chain digest continues what the replica holds; never a gap, never a fork.
2. A batch is one synced transaction. Only then is it durable, told to those who wait, and reported for trimming.
3. Applying a record twice is a no-op, so any step may be repeated after a crash or a reconnect.
4. After every error, every quiet second and every change of epoch, the standing is judged anew before anything is
   applied.
5. A record with a vector of a model that the database was not told of yet waits until it is: the registry knows the model,
   since a coordinator wrote the record.

What only a copy from a peer can settle ends the story; replica.py goes on from there.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kintsugi.cancelling import end
from kintsugi.errors import KintsugiError, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.faults import LogBehind, LogFault, LogForked, LogGap, UnknownModel
from kintsugi.log.read import Head, LogEntry
from kintsugi.position import Position
from kintsugi.registry.records import LogState, ReplicaState, Shard
from kintsugi.registry.watch import RegistryHealth
from kintsugi.telemetry import LogEvent, logger
from shard.membership import Membership
from shard.standing import EpochRefused, PeerHoldsMore, Way, standing_of, way_on
from shard.storage_faults import EpochFenced, StorageFault
from shard.surroundings import Surroundings

_log = logger("replay")

# About as many records as a batch should have: entries are asked for, and hold few or many of them.
BATCH_RECORDS = 512
_FIRST_READ_ENTRIES = 16
QUIET_MS = 1000
PAUSE_S = 0.25
REPORT_INTERVAL_S = 0.2
# A read that outlasts its wait by this much may have outlived a failover of Redis.
STOOD_STILL_S = 0.5


class Applies(Protocol):
    """The database side of a replica, as replay needs it."""

    @property
    def position(self) -> Position: ...
    @property
    def fenced_epoch(self) -> int: ...
    async def apply(self, entries: Sequence[LogEntry]) -> None: ...


class Replay:
    def __init__(
        self,
        target: Applies,
        replica: shard_pb2.ReplicaRef,
        membership: Membership,
        around: Surroundings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._replica = replica
        self._membership = membership
        self._member = around.member
        self._watcher = around.watcher
        self._peers = around.peers
        self._positions = around.positions
        self._reader = around.reader(replica.collection_uid, replica.shard)
        self._clock = clock
        self._reported_at = float("-inf")
        self._read_entries = _FIRST_READ_ENTRIES
        self._last_problem = ""
        # Why the way on is the one that `run` returned, for people.
        self.reason = ""
        # Set once the replica has all that the log can give it for now, or the log cannot be read.
        self.settled = asyncio.Event()

    async def run(self) -> Way:
        """Follows the log until the only way on is COPY or SAVE_AND_COPY. Errors of the database, and of records that
        cannot be read, pass through."""
        while True:
            shard = await self._open_log()
            try:
                await self._follow(shard)
            except UnknownModel as fault:
                if await self._is_unheard_of(fault.model):
                    raise
                self._warn(LogEvent.REPLAY_INTERRUPTED, error=str(fault))
            except LogFault as fault:
                way = await self._settle(fault, shard)
                if way in (Way.COPY, Way.SAVE_AND_COPY):
                    return way
            except KintsugiError as error:
                if isinstance(error, StorageFault) and not isinstance(error, EpochFenced):
                    raise
                self._warn(LogEvent.REPLAY_INTERRUPTED, error=str(error))
                self.settled.set()
            await asyncio.sleep(PAUSE_S)

    async def _open_log(self) -> Shard:
        """Waits for a log that takes writes."""
        while True:
            shard = self._shard()
            if shard and self._is_open():
                return shard
            self.settled.set()
            await self._watcher.wait_for(lambda *_: self._is_open(), timeout_s=QUIET_MS / 1000)

    async def _settle(self, fault: LogFault, shard: Shard) -> Way:
        """Decides the way on, and takes it as far as it is the replay's."""
        standing = standing_of(fault, incarnation=self._incarnation(), epoch=shard.epoch)
        if standing is None:
            raise fault
        self.reason = str(fault)
        way = way_on(standing, in_sync=self._is_in_sync())
        self._warn(LogEvent.REPLAY_OUT_OF_STEP, standing=standing.name, way=way.name, fault=str(fault))
        if way in (Way.WAIT, Way.RECOVER):
            self.settled.set()
            await self._watcher.refresh()
        if way is Way.RECOVER and self._shard() == shard:
            try:
                await self._membership.request_recovery(shard.epoch)
            except KintsugiError as error:  # a registry that is lost as well is recovered first
                self._warn(LogEvent.RECOVERY_POSTPONED, error=str(error))
        return way

    async def _verify(self, shard: Shard, *, ask_peers: bool) -> Head:
        """Compares the log with what this replica and its in-sync peers hold. The peers are asked first: what they
        hold by then, the log must hold."""
        incarnation = self._incarnation()
        asked = self._in_sync_peers(shard) if ask_peers else []
        for peer in await self._peers.reachable_positions(asked, self._replica):
            try:
                await self._reader.verify(incarnation, shard.epoch, peer)
            except LogGap:
                continue  # a peer may be behind what was trimmed for it
            except (LogBehind, LogForked) as fault:
                raise PeerHoldsMore(f"an in-sync peer is at {peer.epoch}-{peer.seq}: {fault}") from fault
        return await self._reader.verify(incarnation, shard.epoch, self._target.position)

    async def _follow(self, shard: Shard) -> None:
        """Applies batch after batch; reads the next one meanwhile. Returns when the registry changes the log's state.

        A batch that is not full means that the head of the log is near: waiting for silence instead would keep a
        replica out for as long as somebody writes."""
        if self._is_refused(shard):
            raise EpochRefused(
                f"the log is open in epoch {shard.epoch}, the replica promised to ignore all before "
                f"{self._target.fenced_epoch}"
            )
        await self._verify(shard, ask_peers=True)
        if not self._is_in_sync():
            # Before the report: nobody waits for the position of a replica out of sync.
            await self._membership.catching_up()
        await self._report(shard, force=True)
        upcoming = self._read_on(shard, self._target.position.seq)
        try:
            while self._still_open(shard):
                entries, is_full = await upcoming
                if not entries:
                    await self._near_head(shard)
                upcoming = self._read_on(shard, entries[-1].seq if entries else self._target.position.seq)
                if entries:
                    for batch in _batches(entries):
                        await self._target.apply(batch)
                        await self._report(shard, force=False)
                    if not is_full and not self._is_in_place():
                        await self._near_head(shard)
        finally:
            await end([upcoming])

    async def _near_head(self, shard: Shard) -> None:
        """Confirms that it is still the log we follow, and that all but the newest of it is applied; then joins the
        in-sync set. (A connection that broke and came back between two reads shows nowhere else.)

        A replica that is not in sync hears its peers as well: whether it or the log holds too little, they decide.
        """
        head = await self._verify(shard, ask_peers=not self._is_in_sync())
        if head.position.seq - self._target.position.seq < BATCH_RECORDS:
            if not self._is_in_sync():
                await self._membership.catching_up()
                await self._report(shard, force=True)
                await self._membership.caught_up()
            await self._report(shard, force=True)
            self._last_problem = ""
            self.settled.set()

    async def _report(self, shard: Shard, *, force: bool) -> None:
        """Tells the log how far it may be trimmed for this replica. Raises LogGap when it was trimmed beyond it: then
        nobody waited for this replica any more, and what it lacks must come from a peer."""
        now = asyncio.get_running_loop().time()
        if force or now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            uid, number = self._replica.collection_uid, self._replica.shard
            seq = self._target.position.seq
            if not (await self._positions.report(uid, number, self._member, seq)).held:
                head = await self._verify(shard, ask_peers=False)  # tells what is wrong
                raise LogGap(f"the log, now from {head.first_seq} on, did not wait for the replica, which was at {seq}")

    def _read_on(self, shard: Shard, after_seq: int) -> "asyncio.Task[tuple[list[LogEntry], bool]]":
        return asyncio.create_task(self._read(shard, after_seq))

    async def _read(self, shard: Shard, after_seq: int) -> tuple[list[LogEntry], bool]:
        """The next entries, and whether there may be more of them already. Unavailable when it took too long: a process that
        stood still finds the answer of the old server, and the next read would silently go to another one."""
        block_ms = QUIET_MS if self.settled.is_set() else 50
        asked_at, count = self._clock(), self._read_entries
        entries: list[LogEntry] = []
        try:
            entries = await self._reader.read(shard.epoch, after_seq, count, block_ms)
        finally:
            took_s = self._clock() - asked_at
            is_late = took_s > block_ms / 1000 + STOOD_STILL_S
            self._read_entries = _next_count(count, entries, is_late=is_late)
        if is_late:
            raise Unavailable(f"reading the log took {took_s:.1f} s, it must be judged anew", reason="STOOD_STILL")
        return entries, len(entries) == count

    def _is_open(self) -> bool:
        shard = self._shard()
        return shard is not None and shard.log_state is LogState.OPEN

    def _is_refused(self, shard: Shard) -> bool:
        return shard.epoch < self._target.fenced_epoch

    def _still_open(self, shard: Shard) -> bool:
        current = self._shard()
        return (
            current is not None and current.epoch == shard.epoch and self._is_open() and not self._is_refused(current)
        )

    def _shard(self) -> Shard | None:
        view = self._watcher.view
        return view.shards.get((self._replica.collection_uid, self._replica.shard)) if view else None

    def _is_in_sync(self) -> bool:
        shard = self._shard()
        return shard is not None and shard.replicas.get(self._member) is ReplicaState.IN_SYNC

    def _in_sync_peers(self, shard: Shard) -> list[str]:
        return [member for member in shard.in_sync if member != self._member]

    async def _is_unheard_of(self, model: int) -> bool:
        """Whether the registry, as it is now, says that there is no such model. Who follows it tells the database."""
        await self._watcher.refresh()
        view = self._watcher.view
        collection = view.collections.get(self._replica.collection_uid) if view else None
        if collection is None or self._watcher.health is not RegistryHealth.OK:
            return False
        return model not in {known.number for known in collection.models}

    def _is_in_place(self) -> bool:
        return self.settled.is_set() and self._is_in_sync()

    def _incarnation(self) -> int:
        view = self._watcher.view
        return view.snapshot.incarnation if view else 0

    def _warn(self, event: LogEvent, **fields: str) -> None:
        """Logs a problem once, not at each of the attempts that meet it again."""
        problem = f"{event} {fields}"
        if problem != self._last_problem:
            _log.warning(event, **self._names(), **fields)
        self._last_problem = problem

    def _names(self) -> dict[str, object]:
        return {"collection_uid": self._replica.collection_uid, "shard": self._replica.shard}


def _batches(entries: Sequence[LogEntry]) -> Iterator[Sequence[LogEntry]]:
    """The entries, in runs that have no more than BATCH_RECORDS, or hold one entry: a read may bring more than it was
    meant to, when entries have come to hold more records."""
    start = records = 0
    for place, entry in enumerate(entries):
        if place > start and records + entry.records > BATCH_RECORDS:
            yield entries[start:place]
            start, records = place, 0
        records += entry.records
    yield entries[start:]


def _next_count(count: int, entries: Sequence[LogEntry], *, is_late: bool) -> int:
    """How many entries to ask for after these, when `count` were asked for."""
    records = sum(entry.records for entry in entries)
    if is_late:
        # Large entries on a slow way would be late again and again.
        count //= 4
    elif records > BATCH_RECORDS or len(entries) == count:
        count = min(2 * count, len(entries) * BATCH_RECORDS // records)
    return min(max(count, 1), BATCH_RECORDS)
