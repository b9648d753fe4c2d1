"""Recovery from a Redis that lost something (DESIGN 3a): the registry first, then the log of each shard.

    registry gone, older or forked -> take the recovery lease -> gather what the shard servers keep -> restore the newest
    log of a shard lost or forked  -> take the recovery lease -> fence the in-sync replicas -> rebuild it from the furthest

Every shard server runs a Guardian; the fenced lease in Redis lets one work at a time, and any other can take over: each
step can be repeated from the start. Invariants:
1. Nothing is rebuilt before every in-sync replica has promised to ignore lower epochs and told its position, but for
   those that an operator gave up by name (AcceptLoss). When all of them were, every other replica must.
2. The log goes on under a higher epoch with the same sequence numbers; what no replica holds ends there.
3. Replicas that hold another history than the furthest one leave the in-sync set and copy from it later. Of two
   histories the one that went on in a later epoch counts, however long the other one is.
4. The new epoch is above every epoch that the registry, the log or a replica knows: a registry that went back may have
   forgotten some, and a replica would never follow an epoch that it has promised to ignore.
5. No promise is asked for before the registry was read again: whoever held the lease before may have opened the log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from kintsugi import failpoints
from kintsugi.cancelling import end
from kintsugi.errors import FailedPrecondition, KintsugiError, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.faults import LogFault
from kintsugi.log.payload import Payload
from kintsugi.log.restore import LogRestorer
from kintsugi.position import Position
from kintsugi.registry import replicas
from kintsugi.registry.file import parse
from kintsugi.registry.records import (
    EpochStart,
    LogState,
    Record,
    ReplicaState,
    Role,
    Shard,
    Snapshot,
    View,
    decode_record,
    encode_record,
)
from kintsugi.registry.watch import RegistryHealth
from kintsugi.telemetry import LogEvent, logger, metric_names, metrics
from shard.peers import from_wire
from shard.surroundings import Surroundings

_log = logger("recovery")
_RECOVERIES = metrics.counter(metric_names.RECOVERIES)

LEASE_MS = 10_000
LOOK_EVERY_S = 0.5
# How long the restoration of a registry waits for shard servers that do not answer: one of them may keep a newer one.
GATHER_PATIENCE_S = 10.0
CHUNK_RECORDS = 128
_LOST = (RegistryHealth.MISSING, RegistryHealth.REGRESSED, RegistryHealth.FORKED)


@dataclass(frozen=True, slots=True)
class Held:
    """What one in-sync replica told while fenced."""

    member: str
    position: Position
    tail_first_seq: int
    fenced_epoch: int = 0


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """From whom the log is rebuilt, behind which position, and who can follow it."""

    leader: Held
    base: Position
    followers: tuple[Held, ...]
    left_behind: tuple[str, ...]


def plan_rebuild(leader: Held, held: Sequence[Held], leader_digests: Mapping[int, bytes]) -> RebuildPlan:
    """Chooses who can follow the leader, and the lowest position it can continue from. `leader_digests` are the leader's
    digests at the others' positions; a missing one counts as another history."""
    followers = [leader]
    first_given = leader.tail_first_seq or leader.position.seq + 1
    for other in held:
        reachable = other.position.seq + 1 >= first_given
        same_history = other.position.seq == 0 or leader_digests.get(other.position.seq) == other.position.digest
        if other is not leader and reachable and same_history:
            followers.append(other)
    base = min((follower.position for follower in followers), key=lambda position: position.seq)
    following = {follower.member for follower in followers}
    left_behind = tuple(other.member for other in held if other.member not in following)
    return RebuildPlan(leader, base, tuple(followers), left_behind)


def furthest(held: Sequence[Held]) -> Held:
    """By sequence number, then epoch, then name."""
    return max(held, key=lambda one: (one.position.seq, one.position.epoch, one.member))


def successors(leader: Held, held: Sequence[Held], leader_digests: Mapping[int, bytes]) -> list[Held]:
    """Those that lived in a later epoch than the leader, if one of them shows that it left the leader's history behind:
    a registry that went back may call a replica in sync that an earlier recovery went on without."""
    later = [other for other in held if other.position.epoch > leader.position.epoch]
    # A digest that the leader no longer has shows nothing; and a leader may be further only because a later epoch's
    # log was rebuilt from it.
    left = any(leader_digests.get(other.position.seq) not in (None, b"", other.position.digest) for other in later)
    return later if left else []


class Guardian:
    """Watches over the registry and the logs for one shard server."""

    def __init__(self, around: Surroundings, restorer: LogRestorer) -> None:
        self._member = around.member
        self._store = around.store
        self._watcher = around.watcher
        self._reader = around.reader
        self._peers = around.peers
        self._restorer = restorer
        self._lost_since: float | None = None
        # (collection uid, shard) -> what its recovery waits for, for people.
        self.waiting: dict[tuple[str, int], str] = {}

    async def run(self) -> None:
        """Looks after every change and every half second; an attempt that fails is made again."""
        while True:
            try:
                await self._look()
            except KintsugiError as error:
                _log.warning(LogEvent.RECOVERY_POSTPONED, error=str(error))
            except Exception as error:  # noqa: BLE001 -- a defect in recovery must not take the searches down
                _log.exception(LogEvent.RECOVERY_POSTPONED, error=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        view, health = self._watcher.view, self._watcher.health
        if view is not None and health in _LOST:
            if self._lost_since is None:
                self._lost_since = asyncio.get_running_loop().time()
            await self._with_lease(self._restore_registry)
            return
        self._lost_since = None
        if view is None or health is not RegistryHealth.OK:
            return
        recovering = [shard for shard in view.replicas_on(self._member) if shard.log_state is LogState.RECOVERING]
        self.waiting = {key: reason for key, reason in self.waiting.items() if view.shards.get(key) in recovering}
        if recovering:
            await self._with_lease(lambda _token: self._recover_logs(recovering))

    async def _recover_logs(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            try:
                await self._recover_log(shard)
            except Exception as error:
                self.waiting[shard.collection_uid, shard.shard] = str(error) or type(error).__name__
                if not isinstance(error, KintsugiError | LogFault):
                    raise
                _log.warning(LogEvent.RECOVERY_POSTPONED, **_names(shard), error=str(error))

    async def _with_lease(self, work: Callable[[str], Awaitable[None]]) -> None:
        """Does the work while this server holds the recovery lease; does nothing when another one holds it."""
        token = await self._store.acquire_recovery(self._member, LEASE_MS)
        if token is None:
            return  # another shard server is at it
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
                renewal = tasks.create_task(self._renew(token, limit))
                await work(token)
                await end([renewal])
        except TimeoutError as error:
            raise Unavailable("the recovery lease was lost") from error
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            await self._store.release_recovery(token)

    # --- The registry -------------------------------------------------------------------------------------------------

    async def _restore_registry(self, token: str) -> None:
        await self._watcher.refresh()
        if self._watcher.health not in _LOST:
            return
        best, silent = await self._gather()
        waited_s = asyncio.get_running_loop().time() - (self._lost_since or 0.0)
        if silent and waited_s < GATHER_PATIENCE_S:
            raise Unavailable(f"waiting for the registries of {', '.join(silent)}")
        _log.warning(LogEvent.REGISTRY_RESTORING, incarnation=best.incarnation, revision=best.revision, silent=silent)
        await self._store.restore(best, close_logs(best), token)
        failpoints.hit("recovery.after_registry")
        await self._watcher.refresh()

    async def _gather(self) -> tuple[Snapshot, list[str]]:
        """The newest registry that any reachable shard server keeps, and the addresses of those that are silent."""
        best, asked, silent = self._known().snapshot, set[str](), list[str]()
        while unasked := shard_addresses(best.view()) - asked:
            for address in sorted(unasked):
                asked.add(address)
                try:
                    answer = await self._peers.registry(address)
                    found = parse(answer, address) if answer else best
                except KintsugiError:  # a registry of a later release is as good as silence
                    silent.append(address)
                    continue
                if found.cluster_id == best.cluster_id and found.version > best.version:
                    best = found
        return best, silent

    # --- The log of a shard -------------------------------------------------------------------------------------------

    async def _recover_log(self, shard: Shard) -> None:
        epoch, held = await self._fence_all(shard)
        plan = await self._plan(shard, held)
        await self._rebuild(shard, epoch, plan)
        await self._reopen(shard, epoch, plan)
        self.waiting.pop((shard.collection_uid, shard.shard), None)
        _RECOVERIES.inc()
        outcome = {"leader": plan.leader.member, "left_behind": plan.left_behind, "given_up": shard.given_up}
        _log.warning(LogEvent.LOG_RECOVERED, **_names(shard), epoch=epoch, seq=plan.leader.position.seq, **outcome)

    async def _next_epoch(self, shard: Shard) -> int:
        """Above what the registry and the log know: a recovery may have rebuilt the log and died before it said so."""
        head = await self._reader(shard.collection_uid, shard.shard).head()
        return max(shard.epoch, head.position.epoch if head else 0) + 1

    async def _fence_all(self, shard: Shard) -> tuple[int, list[Held]]:
        """The epoch to come, and what the replicas hold that have promised to ignore all lower ones."""
        epoch = await self._next_epoch(shard)
        while True:
            # Behind the look at the log: whoever recovers it from now on does so in this epoch or a later one.
            await self._check_recovering(shard)
            held = await self._fence(shard, epoch)
            known = max(max(one.position.epoch + 1, one.fenced_epoch) for one in held)
            if known <= epoch:
                return epoch, held
            # Promised in a history that the registry forgot: that epoch may have been lived in.
            epoch = known + 1

    async def _check_recovering(self, shard: Shard) -> None:
        """Unavailable unless the registry, as it is now, still says what this recovery rests on."""
        await self._watcher.refresh()
        current = self._known().shards.get((shard.collection_uid, shard.shard))
        well = self._watcher.health is RegistryHealth.OK
        if not well or current is None or _premises(current) != _premises(shard):
            raise Unavailable("the shard or its registry changed before its recovery", reason="REGISTRY_MOVED")

    async def _fence(self, shard: Shard, epoch: int) -> list[Held]:
        """Asks every replica that must be heard; Unavailable naming those that do not answer."""
        found, silent = [], []
        for member in replicas.awaited(shard):
            try:
                answer = await self._peers.position(member, _ref(shard), fence_epoch=epoch)
            except KintsugiError as error:
                silent.append(f"{member} ({error})")
                continue
            found.append(Held(member, from_wire(answer.durable), answer.tail_first_seq, answer.fenced_epoch))
        if silent:
            raise Unavailable(f"recovery waits for replicas on {', '.join(silent)}")
        if not found:
            raise FailedPrecondition("recovery has no replica to rebuild the log from: all of them are given up")
        return found

    async def _plan(self, shard: Shard, held: Sequence[Held]) -> RebuildPlan:
        leader = furthest(held)
        while True:
            digests = {}
            for other in held:
                if other is not leader and other.position.seq:
                    answer = await self._peers.position(leader.member, _ref(shard), digest_at=other.position.seq)
                    digests[other.position.seq] = answer.digest
            later = successors(leader, held, digests)
            if not later:
                return plan_rebuild(leader, held, digests)
            leader = furthest(later)

    async def _rebuild(self, shard: Shard, epoch: int, plan: RebuildPlan) -> None:
        incarnation = self._known().snapshot.incarnation
        uid, number = shard.collection_uid, shard.shard
        base = Position(epoch, plan.base.seq, plan.base.digest)
        holds = {follower.member: follower.position.seq for follower in plan.followers}
        await self._restorer.begin(uid, number, incarnation, epoch, base=base, positions=holds)
        chunk: list[tuple[int, Payload, bytes]] = []
        records = 0
        if plan.leader.position.seq > base.seq:
            tail = self._peers.tail(plan.leader.member, _ref(shard), base.seq + 1, plan.leader.position.seq)
            async for entry in tail:
                payload = Payload(entry.payload, entry.records or 1)
                chunk.append((entry.seq, payload, entry.digest))
                records += payload.records
                if records >= CHUNK_RECORDS:
                    await self._restorer.append(uid, number, incarnation, epoch, chunk)
                    failpoints.hit("recovery.mid_log")
                    chunk, records = [], 0
        if chunk:
            await self._restorer.append(uid, number, incarnation, epoch, chunk)
        head = Position(epoch, plan.leader.position.seq, plan.leader.position.digest)
        await self._restorer.finish(uid, number, incarnation, epoch, last=head)

    async def _reopen(self, shard: Shard, epoch: int, plan: RebuildPlan) -> None:
        def change(view: View) -> Sequence[Record]:
            current = view.shards.get((shard.collection_uid, shard.shard))
            if current is None or _premises(current) != _premises(shard):
                raise Unavailable("the shard changed in the registry during its recovery")
            return [reopened_shard(current, epoch, plan)]

        await self._watcher.update(change)

    def _known(self) -> View:
        view = self._watcher.view
        assert view is not None, "recovery starts from a registry that was seen"
        return view

    async def _renew(self, token: str, limit: asyncio.Timeout) -> None:
        while await self._store.renew_recovery(token, LEASE_MS):  # noqa: ASYNC110 -- the lease is in Redis, no event tells
            await asyncio.sleep(LEASE_MS / 4000)
        limit.reschedule(asyncio.get_running_loop().time())


def reopened_shard(shard: Shard, epoch: int, plan: RebuildPlan) -> Shard:
    """The shard's record after its log was rebuilt: open, in the new epoch, without those left behind or given up. Those
    it was rebuilt from are in sync, also when they were not before and everybody in sync was given up."""
    out = {*plan.left_behind, *shard.given_up}
    following = {follower.member for follower in plan.followers}
    return msgspec.structs.replace(
        shard,
        log_state=LogState.OPEN,
        epochs=(*shard.epochs, EpochStart(epoch, plan.leader.position.seq)),
        replicas={
            member: ReplicaState.IN_SYNC
            if member in following
            else ReplicaState.OUT_OF_SYNC
            if member in out and state is ReplicaState.IN_SYNC
            else state
            for member, state in shard.replicas.items()
        },
        given_up=(),
    )


def _premises(shard: Shard) -> tuple[object, ...]:
    """What a recovery rests on; replicas may join meanwhile as they like."""
    return (shard.in_sync, shard.given_up, shard.epochs, shard.log_state)


def close_logs(snapshot: Snapshot) -> dict[str, bytes]:
    """The fields of a registry to restore: all as they were, but every log waits for its own recovery."""
    fields = dict(snapshot.fields)
    for name, value in snapshot.fields.items():
        record = decode_record(name, value)
        if isinstance(record, Shard):
            fields[name] = encode_record(msgspec.structs.replace(record, log_state=LogState.RECOVERING))
    return fields


def shard_addresses(view: View) -> set[str]:
    return {member.address for member in view.members.values() if member.role is Role.SHARD}


def _names(shard: Shard) -> dict[str, object]:
    return {"collection_uid": shard.collection_uid, "shard": shard.shard}


def _ref(shard: Shard) -> shard_pb2.ReplicaRef:
    return shard_pb2.ReplicaRef(collection_uid=shard.collection_uid, shard=shard.shard)
