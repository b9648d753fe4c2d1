"""Replay against a real log and registry, with a database in memory: what it applies, and how it goes on when the log is
not what it was."""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import count

import msgspec
import pytest

from kintsugi.cancelling import end
from kintsugi.internal.v1 import shard_pb2
from kintsugi.keys import Keys
from kintsugi.log.append import AppendRequest, LogTarget, LogWriter
from kintsugi.log.faults import RecordUnreadable, UnknownModel
from kintsugi.log.payload import Payload
from kintsugi.log.positions import LogPositions
from kintsugi.log.read import LogEntry, verify_next
from kintsugi.log.restore import LogRestorer
from kintsugi.metrics import Metric, StoredType
from kintsugi.position import START, Position
from kintsugi.redis_client import connect
from kintsugi.registry.records import Collection, Defaults, EpochStart, LogState, Model, ReplicaState, Shard
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryWatcher
from shard.build_pace import BuildPace
from shard.build_turns import BuildTurns
from shard.index_reports import IndexReports
from shard.membership import Membership
from shard.replay import BATCH_RECORDS, Replay
from shard.settings import ShardSettings
from shard.standing import Way
from shard.storage_faults import EpochFenced, StorageFull
from shard.surroundings import Surroundings

UID, ME = "c1", "me"
REF = shard_pb2.ReplicaRef(collection_uid=UID, shard=0)
IN_SYNC, JOINING, OUT_OF_SYNC = ReplicaState.IN_SYNC, ReplicaState.JOINING, ReplicaState.OUT_OF_SYNC


@dataclass
class Database:
    """A target in memory with the rules of the real one."""

    position: Position = START
    fenced_epoch: int = 0
    applied: list[LogEntry] = field(default_factory=list)
    failure: Exception | None = None
    refused: asyncio.Event = field(default_factory=asyncio.Event)

    async def apply(self, entries) -> None:
        if self.failure is not None:
            self.refused.set()
            raise self.failure
        for entry in entries:
            if entry.seq <= self.position.seq:
                continue
            if entry.epoch < self.fenced_epoch:
                raise EpochFenced(f"record {entry.seq} is fenced")
            self.position = verify_next(self.position, entry)
            self.applied.append(entry)

    @property
    def payloads(self):
        return [entry.payload for entry in self.applied]


@dataclass
class FakePeers:
    """Peers that answer with these positions."""

    positions: list[Position] = field(default_factory=list)

    async def reachable_positions(self, members, replica):
        return self.positions if list(members) else []


class World:
    """One log and registry, and the replay of one replica."""

    def __init__(self, url, folder) -> None:
        self.redis, self.keys = connect(url), Keys("test")
        self.store = RegistryStore(self.redis, self.keys)
        self.watcher = RegistryWatcher(self.store)
        self.writer = LogWriter(self.redis, self.keys, max_log_bytes=2**24)
        self.positions = LogPositions(self.redis, self.keys)
        self.peers, self.database = FakePeers(), Database()
        settings = ShardSettings(data=folder, redis=url)
        reports = IndexReports(self.watcher, ME)
        turns = BuildTurns(self.watcher, reports, ME)
        around = Surroundings(
            ME, settings, self.redis, self.keys, self.store, self.watcher, self.positions, self.peers, reports, turns,
            BuildPace(), None,
        )  # fmt: skip
        self.reader = around.reader(UID, 0)
        self.stood_still_s = 0.0
        membership = Membership(self.watcher, ME, UID, 0)
        self.replay = Replay(self.database, REF, membership, around, lambda: time.monotonic() + self.stood_still_s)
        self._numbers = count()
        self._stop = asyncio.Event()
        self._watching = asyncio.create_task(self.watcher.run(self._stop))
        self._running = None

    async def create(self, state=IN_SYNC, **others) -> None:
        """A shard with a log, and a replica in this state beside those of others."""
        await self.store.init("cluster-1", Defaults())
        await self.writer.create(UID, 0, 1, 1, [ME])
        await self.put(Shard(UID, 0, (EpochStart(1, 0),), LogState.OPEN, {ME: state, **others}))

    async def put(self, shard) -> None:
        await self.store.update(lambda view: [shard])
        await self.watcher.refresh()

    async def shard(self) -> Shard:
        snapshot = await self.store.read()
        return snapshot.view().shards[UID, 0]

    async def write(self, *payloads, incarnation=1, epoch=1, records=1) -> Position:
        target = LogTarget(UID, 0, incarnation, epoch, START)
        request = AppendRequest(f"r{next(self._numbers)}", [Payload(payload, records) for payload in payloads])
        (result,) = await self.writer.append(target, [request], 5.0)
        return result.last

    async def lose_last(self, number: int) -> None:
        """Redis comes back without its last entries, whole in itself, as from an append-only file that was cut."""
        log, head = self.keys.shard(UID, 0).log, self.keys.shard(UID, 0).head
        entries = (await self.redis.xrange(log))[:-number]
        entry_id, fields = entries[-1]
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.delete(log)
            for kept_id, kept in entries:
                pipe.xadd(log, kept, id=kept_id)
            pipe.hset(head, mapping={"seq": entry_id.split(b"-")[1], "digest": fields[b"d"]})
            await pipe.execute()

    def start(self) -> "asyncio.Task[Way]":
        self._running = asyncio.create_task(self.replay.run())
        return self._running

    async def settled(self) -> None:
        await asyncio.wait_for(self.replay.settled.wait(), 20)

    async def way(self) -> Way:
        """The way on with which the replay ends."""
        return await asyncio.wait_for(self._running or self.start(), 20)

    async def close(self) -> None:
        if self._running is not None:
            await end([self._running])
        self._stop.set()
        await self._watching
        await self.redis.aclose()


def collection_of(models):
    """The registry's record of a collection with so many models."""
    every = tuple(Model(number, f"m{number}", 4, Metric.COSINE) for number in range(1, models + 1))
    return Collection(UID, "docs", 1, 1, Metric.COSINE, StoredType.F32, every, "m1", 1)


@pytest.fixture
async def new_world(tmp_path):
    worlds = []

    def make(url):
        world = World(url, tmp_path)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        await world.close()


@pytest.fixture
async def world(new_world, valkey) -> World:
    return new_world(valkey.url)


async def recovers(world, soon) -> None:
    """Waits until recovery was asked for, and that the replay then waits for it."""
    running = world.start()
    await soon(lambda: world.watcher.view.shards[UID, 0].log_state is LogState.RECOVERING, "recovery is asked for")
    assert not running.done()
    assert (await world.shard()).epoch == 1


async def test_replay_follows_the_log_in_order_and_once(world, soon):
    """What was there before and what is written later arrives in order, across batches, each record once."""
    await world.create()
    await world.write(*(b"%d" % number for number in range(1200)))
    world.start()
    await world.settled()
    last = await world.write(b"1200", b"1201")
    await soon(lambda: world.database.position == last, "the writes arrive")
    assert world.database.payloads == [b"%d" % number for number in range(1202)]
    assert (await world.positions.all(UID, 0))[ME] >= 1200


async def test_a_record_of_a_new_model_waits_for_whoever_follows_the_registry(world, soon):
    """The registry knows the model already, the database does not yet: replay goes on once it does."""
    await world.create()
    await world.put(collection_of(2))
    last = await world.write(b"1")
    world.database.failure = UnknownModel("record 1 has a vector of model 2", model=2)
    refused = world.database.refused
    running = world.start()
    await asyncio.wait_for(refused.wait(), 20)
    refused.clear()
    await asyncio.wait_for(refused.wait(), 20)
    assert not running.done()
    assert not world.replay.settled.is_set()
    world.database.failure = None
    await soon(lambda: world.database.position == last, "the record is applied")


async def test_a_record_of_a_model_that_the_registry_does_not_know_ends_the_replay(world):
    """Nobody would ever tell the database of it."""
    await world.create()
    await world.put(collection_of(1))
    await world.write(b"1")
    world.database.failure = UnknownModel("record 1 has a vector of model 2", model=2)
    with pytest.raises(UnknownModel):
        await world.way()


async def test_a_quiet_log_does_not_delay_the_next_write(world, soon):
    """After a time of silence, a write is applied long before the next look at the log is due."""
    await world.create()
    world.start()
    await world.settled()
    applied = asyncio.Event()
    apply = world.database.apply

    async def tell(entries):
        await apply(entries)
        applied.set()

    world.database.apply = tell
    delays = []
    for number in range(5):
        applied.clear()
        before = asyncio.get_running_loop().time()
        await world.write(b"%d" % number)
        await asyncio.wait_for(applied.wait(), 10)
        delays.append(asyncio.get_running_loop().time() - before)
    assert min(delays) < 0.2
    assert sorted(delays)[2] < 0.5, delays


async def test_a_joining_replica_gets_in_sync_while_somebody_writes(world, soon):
    """A log that never falls silent does not keep a replica out."""
    await world.create(OUT_OF_SYNC, other=IN_SYNC)
    await world.write(b"first")

    async def write_on():
        while True:
            await world.write(b"x")

    writing = asyncio.create_task(write_on())
    try:
        world.start()
        await world.settled()
        await soon(lambda: ME in world.watcher.view.shards[UID, 0].in_sync, "the replica is in sync")
        assert not writing.done()
    finally:
        await end([writing])


async def test_a_replica_that_lost_its_lease_rejoins_while_it_follows(world, soon):
    """Taken out of the in-sync set by others, a replica that follows the log says that it is there."""
    await world.create(IN_SYNC, other=IN_SYNC)
    world.start()
    await world.settled()
    await world.put(msgspec.structs.replace(await world.shard(), replicas={ME: OUT_OF_SYNC, "other": IN_SYNC}))
    await soon(lambda: ME in world.watcher.view.shards[UID, 0].in_sync, "the replica is in sync again")


async def test_a_log_that_is_gone_is_rebuilt(world, soon):
    """Without a log, recovery is asked for, also when the loss shows only while following."""
    await world.create()
    await world.write(b"1")
    world.start()
    await world.settled()
    of_shard = world.keys.shard(UID, 0)
    await world.redis.delete(of_shard.head, of_shard.log, of_shard.positions)
    await soon(lambda: world.watcher.view.shards[UID, 0].log_state is LogState.RECOVERING, "recovery is asked for")


async def test_a_log_behind_an_in_sync_replica_is_rebuilt(world, soon):
    """An in-sync replica that holds more than the log does not give it up."""
    await world.create(other=IN_SYNC)
    await world.write(b"1", b"2", b"3")
    world.database.position = (await world.reader.head()).position
    await world.lose_last(1)
    await recovers(world, soon)
    assert world.database.position.seq == 3


async def test_entries_replaced_inside_one_epoch_are_never_applied(world, soon):
    """A log that lost entries and took as many others looks contiguous; the chain of digests tells."""
    await world.create()
    await world.write(b"1", b"2", b"3")
    world.start()
    await soon(lambda: world.database.position.seq == 3, "all is applied")
    await world.lose_last(2)
    await world.write(b"other 2", b"other 3", b"other 4")
    await soon(lambda: world.watcher.view.shards[UID, 0].log_state is LogState.RECOVERING, "recovery is asked for")
    assert world.database.payloads == [b"1", b"2", b"3"]


@pytest.mark.parametrize("own", [[b"1", b"other"], [b"1", b"other", b"3", b"4"]], ids=["shorter", "longer"])
async def test_a_replica_out_of_sync_gives_way_to_the_log(world, own):
    """Whether its own history is shorter or longer than the log's, it is saved and replaced."""
    await world.create(OUT_OF_SYNC, other=IN_SYNC)
    await world.write(*own)
    world.database.position = (await world.reader.head()).position
    await world.lose_last(len(own) - 1)
    world.peers.positions = [await world.write(b"2", b"3")]
    assert await world.way() is Way.SAVE_AND_COPY
    assert (await world.shard()).log_state is LogState.OPEN


@pytest.mark.parametrize("other", [IN_SYNC, OUT_OF_SYNC])
async def test_a_replica_that_the_log_was_trimmed_beyond_copies(world, other):
    """What is no longer in the log must come from a peer; if there is none in sync, the log is not rebuilt without it."""
    await world.create(other=other)
    await world.write(b"1", b"2", b"3")
    await world.redis.xtrim(world.keys.shard(UID, 0).log, minid="1-3", approximate=False)
    assert await world.way() is Way.COPY


async def test_a_replica_takes_up_its_hold_as_one_that_joins(world):
    """Nobody waits for a replica out of sync, so what housekeeping drops until it joins must not be missed."""
    await world.create(OUT_OF_SYNC, other=IN_SYNC)
    await world.write(b"1", b"2")
    join = world.replay._membership.catching_up

    async def join_as_the_position_is_dropped():
        await world.positions.drop(UID, 0, ME)
        await join()

    world.replay._membership.catching_up = join_as_the_position_is_dropped
    world.start()
    await world.settled()
    assert (await world.positions.all(UID, 0))[ME] == 2
    assert (await world.shard()).replicas[ME] is IN_SYNC


async def test_a_replica_that_the_log_did_not_wait_for_starts_over(world):
    """Trimmed beyond the replica between its look at the log and its hold: it copies, and says why."""
    await world.create(OUT_OF_SYNC, other=IN_SYNC)
    await world.write(b"1", b"2", b"3")
    join = world.replay._membership.catching_up

    async def join_as_the_log_is_trimmed():
        await join()
        await world.redis.xtrim(world.keys.shard(UID, 0).log, minid="1-3", approximate=False)

    world.replay._membership.catching_up = join_as_the_log_is_trimmed
    assert await world.way() is Way.COPY
    assert "begins at 3" in world.replay.reason
    assert ME not in await world.positions.all(UID, 0)
    assert not world.database.applied


async def test_a_peer_that_holds_more_than_the_log_has_it_rebuilt(world, soon):
    """A replica that agrees with the log, in sync or not, speaks up for an in-sync peer that does not."""
    await world.create(JOINING, other=IN_SYNC)
    await world.write(b"1")
    last = await world.write(b"2")
    await world.lose_last(1)
    world.peers.positions = [last]
    await recovers(world, soon)


async def test_a_replay_that_stood_still_hears_its_peers_before_it_applies(world, soon):
    """Redis failed over and lost entries that a peer holds, unseen by a process that stood still: nothing of the new
    server's log is applied before the peers were asked again."""
    await world.create(other=IN_SYNC)
    await world.write(b"1")
    read = world.replay._reader.read

    async def read_over_a_failover(*arguments):
        if not world.peers.positions:
            world.peers.positions = [await world.write(b"2")]
            await world.lose_last(1)
            await world.write(b"other 2")
            world.stood_still_s = 60.0
        return await read(*arguments)

    world.replay._reader.read = read_over_a_failover
    await recovers(world, soon)
    assert world.database.payloads == []


async def test_a_log_of_a_later_epoch_is_waited_for(world, soon):
    """While the registry does not yet say so, nothing of the new epoch is applied; then it is followed."""
    await world.create()
    last = await world.write(b"1")
    world.start()
    await soon(lambda: world.database.position == last, "the write arrives")
    restorer = LogRestorer(world.redis, world.keys)
    await restorer.begin(UID, 0, 1, 2, Position(2, last.seq, last.digest), {ME: 1})
    await restorer.finish(UID, 0, 1, 2, last)
    moved = await world.write(b"2", epoch=2)
    world.replay.settled.clear()
    await world.settled()
    assert world.database.payloads == [b"1"]
    shard = await world.shard()
    assert shard.log_state is LogState.OPEN
    await world.put(msgspec.structs.replace(shard, epochs=(*shard.epochs, EpochStart(2, 1))))
    await soon(lambda: world.database.position == moved, "the new epoch is followed")
    assert world.database.payloads == [b"1", b"2"]


@pytest.mark.parametrize("back", ["epoch", "restoring"])
async def test_a_log_that_went_back_behind_its_registry_is_rebuilt(world, soon, back):
    """A log of an earlier epoch than the registry's, or in a restoration that the registry saw end, lost something."""
    await world.create()
    if back == "epoch":
        shard = await world.shard()
        await world.put(msgspec.structs.replace(shard, epochs=(*shard.epochs, EpochStart(2, 0))))
    else:
        await world.redis.hset(world.keys.shard(UID, 0).head, "state", "restoring")
    world.start()
    await soon(lambda: world.watcher.view.shards[UID, 0].log_state is LogState.RECOVERING, "recovery is asked for")


async def test_an_epoch_that_was_promised_away_is_never_followed(world, soon):
    """After a fence, records of the old epoch stay where they are, however open the log is. When the registry goes on
    calling it open, nobody is about to open a later one: recovery is asked for, or writes would stop for ever."""
    await world.create()
    world.database.fenced_epoch = 2
    await world.write(b"1")
    await recovers(world, soon)
    assert world.database.payloads == []


async def test_a_promise_that_the_registry_is_late_to_tell_of_is_no_loss(world, soon):
    """The registry calls a later epoch open; only this replica has not read it yet."""
    await world.create()
    await world.write(b"1")
    shard = await world.shard()
    restorer = LogRestorer(world.redis, world.keys)
    await restorer.begin(UID, 0, 1, 2, Position(2, 0, b""), {ME: 0})
    await restorer.finish(UID, 0, 1, 2, Position(2, 0, b""))
    await world.store.update(lambda _: [msgspec.structs.replace(shard, epochs=(*shard.epochs, EpochStart(2, 0)))])
    world.database.fenced_epoch = 2
    last = await world.write(b"2", epoch=2)
    world.start()
    await soon(lambda: world.database.position == last, "the new epoch is followed")
    assert (await world.shard()).log_state is LogState.OPEN


async def test_records_that_take_long_to_read_arrive_in_smaller_pieces(world, soon):
    """A read that is late is not applied. Were the next one as large, it would be late as well, for ever."""
    await world.create()
    await world.write(*(b"%d" % number for number in range(1200)))
    read = world.replay._reader.read

    async def read_slowly(epoch, after_seq, records, block_ms):
        world.stood_still_s += 60.0 if records > 100 else 0.0
        return await read(epoch, after_seq, records, block_ms)

    world.replay._reader.read = read_slowly
    world.start()
    await soon(lambda: world.database.position.seq == 1200, "everything arrives")
    assert world.database.payloads == [b"%d" % number for number in range(1200)]


async def test_a_batch_has_about_as_many_records_however_many_an_entry_holds(world, soon):
    """Entries of many records are asked for in small numbers; what a read brings beyond that is applied in parts."""
    await world.create()
    await world.write(*(b"%d" % number for number in range(1000)))
    last = await world.write(*(b"%d" % number for number in range(60)), records=128)
    read, apply = world.replay._reader.read, world.database.apply
    brought, applied = [], []

    async def read_and_count(*arguments):
        entries = await read(*arguments)
        brought.append(sum(entry.records for entry in entries))
        return entries

    async def apply_and_count(entries):
        applied.append(sum(entry.records for entry in entries))
        await apply(entries)

    world.replay._reader.read, world.database.apply = read_and_count, apply_and_count
    world.start()
    await soon(lambda: world.database.position == last, "everything arrives")
    assert max(brought) > BATCH_RECORDS, "a read was meant to bring too much"
    assert max(applied) == BATCH_RECORDS
    assert sum(applied) == last.seq
    brought.clear()
    last = await world.write(*(b"%d" % number for number in range(60)), records=128)
    await soon(lambda: world.database.position == last, "everything arrives")
    assert max(brought) == BATCH_RECORDS


async def test_the_standing_is_judged_anew_after_a_reconnect(new_world, new_valkey, soon):
    """Redis is killed and comes back: intact, replay goes on; without its last entry, recovery is asked for."""
    valkey = new_valkey()
    world = new_world(valkey.url)
    await world.create()
    running = world.start()
    last = await world.write(b"1")
    await soon(lambda: world.database.position == last, "the write arrives")
    valkey.kill()
    await asyncio.to_thread(valkey.start)
    last = await world.write(b"2")
    await soon(lambda: world.database.position == last, "the write after the restart arrives")
    valkey.kill()
    await asyncio.to_thread(valkey.start)
    await world.lose_last(1)
    await world.write(b"other 2")
    await soon(lambda: world.watcher.view.shards[UID, 0].log_state is LogState.RECOVERING, "recovery is asked for")
    assert world.database.payloads == [b"1", b"2"]
    assert not running.done()


@pytest.mark.parametrize("failure", [StorageFull("full"), RecordUnreadable("record 1 is damaged")])
async def test_what_the_database_cannot_take_ends_the_replay(world, failure):
    """A full disk and an unreadable record pass through; they are the replica's to tell."""
    await world.create()
    await world.write(b"1")
    world.database.failure = failure
    with pytest.raises(type(failure), match=str(failure)):
        await world.way()
