r"""One replica from opening to closing: its database, its index, and the phase it is in.

    open -> replay until caught up -> serve (and replay on) -> close
         \-> behind or diverged: copy from a peer, open again
         \-> corrupt: set aside, copy from a peer; full or failing: leave the in-sync set, try again later

Guarantees: answers only in phase SERVING; a failure changes this replica alone and is told in its phase and message.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from kintsugi.cancelling import end, finish
from kintsugi.errors import Aborted, DeadlineExceeded, KintsugiError, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.faults import LogFault
from kintsugi.log.read import LogEntry
from kintsugi.position import Position
from kintsugi.registry.records import Collection, LogState, Shard, Upgrade
from kintsugi.telemetry import LogEvent, logger
from shard.bootstrap import Bootstrap, first_serving_peer
from shard.engine import Engine, ModelOutside, ReplicaOutside
from shard.folders import Folders
from shard.membership import Membership
from shard.rebuilder import Outside
from shard.replay import Replay
from shard.standing import Way
from shard.storage_faults import StorageCorrupt
from shard.surroundings import Surroundings
from shard.upgrading import LoadedUpgrade

RETRY_S = 2.0
# Copying a large database again and again would burden the peer as well: each failure in a row doubles the pause.
LONGEST_RETRY_S = 16.0
DISCARDED_CHECK_S = 0.5
TRIM_EVERY_S = 5.0
# Indexes come and go while a collection moves to another model: so often we look which ones there are to watch.
WATCH_S = 1.0

_log = logger("replica")


class ReplicaPhase(StrEnum):
    # Opens its files. Left by having them open.
    OPENING = "opening"
    # Catches up with the log and with its own journal. Left by having caught up, or finding no log to read.
    REPLAYING = "replaying"
    # Answers. Left by any of the phases below.
    SERVING = "serving"
    # Copies from a peer. Left by opening the copy.
    BOOTSTRAPPING = "bootstrapping"
    # Something that people or time must mend; tried again and again.
    FAILED = "failed"

    @property
    def may_answer(self) -> bool:
        return self is ReplicaPhase.SERVING


class _WriterThread:
    """The database side of a replica for the replay: whatever blocks happens on the replica's own thread."""

    def __init__(self, engine: Engine, writer: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._writer = writer

    @property
    def position(self) -> Position:
        return self._engine.position

    @property
    def fenced_epoch(self) -> int:
        return self._engine.storage.fenced_epoch

    async def apply(self, entries: Sequence[LogEntry]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, self._engine.apply, entries)


class Replica:
    def __init__(
        self, collection: Collection, upgrade: Upgrade | None, shard: int, folders: Folders, around: Surroundings
    ) -> None:
        self.collection = collection
        self.upgrade = upgrade
        self.ref = shard_pb2.ReplicaRef(collection_uid=collection.uid, shard=shard)
        self.phase = ReplicaPhase.OPENING
        self.message = ""
        self.settled = asyncio.Event()  # has been SERVING or FAILED at least once
        self._folders = folders
        self._folder = folders.replica(collection.uid, shard)
        self._around = around
        # Opened and closed on the writer's thread only, so that a cancelled opening is still closed behind it.
        self._engine: Engine | None = None
        self._is_corrupt = False
        # The registry has something else than the engine follows.
        self._changed = asyncio.Event()
        self._copying_because = ""
        self._failures = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"write-{collection.name}-{shard}")
        self._membership = Membership(around.watcher, around.member, collection.uid, shard)
        self._copying = Bootstrap(
            around.member, self.ref, around.peers, around.positions, self._membership, self._tell_copying
        )

    # --- Asked by the service -----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._engine is not None

    @property
    def engine(self) -> Engine:
        """The open database and index, in whatever phase. Unavailable while they are closed."""
        if self._engine is None:
            raise Unavailable(f"replica {self._title} is {self.phase}{f': {self.message}' if self.message else ''}")
        return self._engine

    def answering(self) -> Engine:
        """The engine, if the replica may answer reads."""
        if not self.phase.may_answer:
            raise Unavailable(f"replica {self._title} is {self.phase}{f': {self.message}' if self.message else ''}")
        return self.engine

    async def hold(self, position: Position, timeout_s: float, *, searchable: bool) -> Engine:
        """Waits until the replica holds a write on disk, or in its serving index. Aborted when recovery discarded it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while True:
            engine = self.engine
            self._refuse_discarded(position)
            patience_s = min(end - loop.time(), DISCARDED_CHECK_S)
            if patience_s > 0 and await engine.reached(position.seq, patience_s, searchable=searchable):
                break
            if loop.time() >= end:
                raise DeadlineExceeded(
                    f"replica {self._title} is at sequence number {engine.searchable_seq if searchable else engine.position.seq}, "
                    f"not yet at {position.seq}"
                )
        if engine.position.epoch < position.epoch:
            # Numbers of an old history say nothing of a later epoch's writes; a peer, or this replica in time, can.
            raise Unavailable(f"replica {self._title} has not followed its log into epoch {position.epoch} yet")
        held = engine.storage.digest_at(position.seq) if position.seq else b""
        if held is not None and held != position.digest:
            raise Aborted(f"write {position.epoch}-{position.seq} of {self._title} was discarded by recovery")
        return engine

    async def fence(self, epoch: int) -> None:
        """Promises, durably, to apply no record of a lower epoch; returns behind whatever is being applied."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self.engine.storage.fence, epoch)

    def _refuse_discarded(self, position: Position) -> None:
        shard = self._shard()
        if shard is not None and not shard.survived(position.epoch, position.seq) and shard.epoch > position.epoch:
            raise Aborted(f"write {position.epoch}-{position.seq} of {self._title} was discarded by recovery")

    def follow(self, collection: Collection, upgrade: Upgrade | None) -> None:
        """Takes the collection and its upgrade as the registry has them now. What follows from it happens soon."""
        if (collection, upgrade) != (self.collection, self.upgrade):
            self.collection, self.upgrade = collection, upgrade
            self._changed.set()

    # --- The life of the replica --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until cancelled, then closes the files."""
        try:
            while True:
                await self._live()
        finally:
            self.settled.set()
            await finish(self._close())
            self._writer.shutdown(wait=False)

    async def _live(self) -> None:
        """One opening, up to the next reason to close. Never lets a failure out."""
        try:
            if self._is_corrupt and self._in_sync_peers():
                await self._set_aside_corrupt()
            await self._open()
            replay = Replay(_WriterThread(self.engine, self._writer), self.ref, self._membership, self._around)
            way = await self._replay_and_serve(replay)
            await self._copy_from_peer(replay.reason, diverged=way is Way.SAVE_AND_COPY)
        except StorageCorrupt as fault:
            # The only copy there is stays where it is, until people decide.
            self._is_corrupt = True
            await self._fail(fault, close=True)
        except (KintsugiError, LogFault) as fault:
            await self._fail(fault, close=self._engine is not None and self._engine.failure is not None)
        except Exception as fault:  # noqa: BLE001 -- a defect in one replica must not take the others down
            _log.exception(LogEvent.REPLICA_FAILED, **self._names())
            await self._fail(fault, close=True)

    async def _open(self) -> None:
        if self.phase is not ReplicaPhase.FAILED:
            self._enter(ReplicaPhase.OPENING, "")
        if self._engine is None:
            loop = asyncio.get_running_loop()
            self._changed.clear()
            collection, upgrade = self.collection, await self._around.upgrades.loaded(self.collection, self.upgrade)
            outside = self._outside_of(loop)
            await loop.run_in_executor(self._writer, self._open_files, collection, upgrade, outside)
        self._is_corrupt = False
        self._enter(ReplicaPhase.REPLAYING, self.message if self._failures else "")

    def _outside_of(self, loop: asyncio.AbstractEventLoop) -> ReplicaOutside:
        around, key = self._around, (self.collection.uid, self.ref.shard)
        reports = around.index_reports.reporter(self.collection, self.ref.shard, loop)

        def of(model: str) -> ModelOutside:
            turn = around.build_turns.turn_of(key, model, loop)
            return ModelOutside(Outside(reports.of(model), turn, around.build_pace), lambda: reports.closed(model))

        return ReplicaOutside(of, around.build_pace)

    def _open_files(self, collection: Collection, upgrade: LoadedUpgrade | None, outside: ReplicaOutside) -> None:
        self._folder.prepare()
        settings, observe = self._around.settings, self._around.observe
        self._engine = Engine.open(collection, upgrade, self._folder, settings, outside, observe)

    async def _follow_registry(self) -> None:
        """Opens and closes indexes as the registry asks for models, and lets go of vectors that nobody needs any more."""
        loop = asyncio.get_running_loop()
        while True:
            engine = self.engine
            collection, upgrade = self.collection, self.upgrade
            # At once: writes with vectors of a new model must not wait for the files of its upgrade.
            await loop.run_in_executor(self._writer, engine.know_models, collection)
            try:
                loaded = await self._around.upgrades.loaded(collection, upgrade)
            except Unavailable as error:  # searches of the models that are open go on
                await self._follow_later(error)
                continue
            await loop.run_in_executor(self._writer, engine.follow, collection, loaded)
            # Not on the writer's thread: what is to be applied goes between its many small transactions.
            await asyncio.to_thread(engine.drop_vectors)
            try:
                await self._around.upgrades.fetch_planned(upgrade)
            except Unavailable as error:  # nothing needs it yet
                await self._follow_later(error)
                continue
            await self._changed.wait()
            self._changed.clear()

    async def _follow_later(self, error: Unavailable) -> None:
        _log.warning(LogEvent.UPGRADE_NOT_FOLLOWED, **self._names(), error=str(error))
        await asyncio.sleep(RETRY_S)

    async def _replay_and_serve(self, replay: Replay) -> Way:
        """Runs until the replay ends with a way on, or it or the index fails."""
        replaying = asyncio.create_task(replay.run())
        serving = asyncio.create_task(self._serve_when_ready(replay))
        trimming = asyncio.create_task(self._trim_regularly())
        following = asyncio.create_task(self._follow_registry())
        tasks = (replaying, serving, trimming, following)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for failed in (serving, trimming, following):
                if failed.done():
                    failed.result()
            return await replaying
        finally:
            await end(tasks)

    async def _serve_when_ready(self, replay: Replay) -> None:
        """Serves once the log gives nothing more and the index has followed the database. Then waits for an index to
        fail, which raises."""
        await replay.settled.wait()
        engine = self.engine
        target = engine.position.seq
        while not await engine.reached(target, RETRY_S, searchable=True):
            self._tell(f"indexing: at {engine.searchable_seq} of {target}")
        self._failures = 0
        self._enter(ReplicaPhase.SERVING, "")
        self.settled.set()
        while True:
            await engine.watch(WATCH_S)

    async def _trim_regularly(self) -> None:
        """While the log is open and we speak for it: otherwise our tail may be all that is left of something."""
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            shard = self._shard()
            if shard is None or shard.log_state is not LogState.OPEN or self._around.member not in shard.in_sync:
                continue
            try:
                holds = await self._around.positions.all(self.ref.collection_uid, self.ref.shard)
                below = min(holds.values(), default=0)
                # Not on the writer's thread: what is to be applied goes between its many small transactions.
                await asyncio.to_thread(self.engine.trim, below)
            except StorageCorrupt:
                raise
            except KintsugiError as error:
                _log.warning(LogEvent.TRIM_POSTPONED, **self._names(), error=str(error))

    async def _copy_from_peer(self, reason: str, *, diverged: bool) -> None:
        self._copying_because = reason
        self._enter(ReplicaPhase.BOOTSTRAPPING, reason)
        peer = await first_serving_peer(self._around.peers, self._in_sync_peers(), self.ref)
        if diverged and self._engine is not None:
            await self._copying.save_divergent_tail(peer, self._engine.storage, self._folders.diverged)
        await self._copying.fetch(peer, self._folder.incoming)
        await asyncio.to_thread(self._folder.accept_copy)
        await self._close()

    async def _set_aside_corrupt(self) -> None:
        """Puts a copy from a peer into the place of an unreadable database, which is kept for people."""
        await self._copy_from_peer("its database cannot be read", diverged=False)
        if self._folder.database.exists():
            await asyncio.to_thread(self._folders.set_aside, self._folder.database, "corrupt")

    async def _fail(self, fault: Exception, *, close: bool) -> None:
        """Says so, leaves the in-sync set where that is allowed, and pauses."""
        self._enter(ReplicaPhase.FAILED, str(fault) or type(fault).__name__)
        self.settled.set()
        try:
            await self._membership.diverged()
        except KintsugiError as error:  # the registry may be down as well; housekeeping sees to it later
            _log.warning(LogEvent.REPLICA_FAILED, **self._names(), error=str(error))
        if close:
            try:
                await self._close()
            except Exception:  # noqa: BLE001 -- what failed may fail to close, too; it is opened anew
                _log.exception(LogEvent.REPLICA_FAILED, **self._names())
        pause_s = min(RETRY_S * 2.0**self._failures, LONGEST_RETRY_S)
        self._failures += 1
        await asyncio.sleep(pause_s)

    async def _close(self) -> None:
        """Behind whatever is being opened or applied."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._close_files)

    def _close_files(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _enter(self, phase: ReplicaPhase, message: str) -> None:
        if (phase, message) != (self.phase, self.message):
            _log.info(LogEvent.REPLICA_PHASE, **self._names(), phase=phase.value, message=message)
        self.phase, self.message = phase, message

    def _tell(self, message: str) -> None:
        self.message = message

    def _tell_copying(self, message: str) -> None:
        if self.phase is ReplicaPhase.BOOTSTRAPPING:
            self.message = f"{message}, because {self._copying_because}"

    def _in_sync_peers(self) -> list[str]:
        shard = self._shard()
        return [member for member in (shard.in_sync if shard else ()) if member != self._around.member]

    def _shard(self) -> Shard | None:
        view = self._around.watcher.view
        return view.shards.get((self.ref.collection_uid, self.ref.shard)) if view else None

    @property
    def _title(self) -> str:
        return f"{self.collection.name}/{self.ref.shard}"

    def _names(self) -> dict[str, object]:
        return {"collection": self.collection.name, "shard": self.ref.shard}
