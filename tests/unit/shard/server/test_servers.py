"""Shard servers that lose data, fall behind, diverge, or lose their Redis: each comes back by itself, and nothing is
lost that another one holds. Real Valkey, gRPC and LMDB, in one process."""

import asyncio
import base64
import contextlib
import json
import os

import msgspec
import pytest

from kintsugi.durable import remove_folder
from kintsugi.errors import Aborted, NotFound, Unavailable
from kintsugi.ids import encode
from kintsugi.internal.v1 import shard_pb2
from kintsugi.lifecycle import LifecycleState
from kintsugi.limits import MAX_ARTIFACT_CHUNK_BYTES
from kintsugi.log.chain import extend
from kintsugi.log.read import LogEntry
from kintsugi.log.records import pack
from kintsugi.log.records import parse as parse_record
from kintsugi.metrics import StoredType
from kintsugi.position import Position
from kintsugi.projections import artifact
from kintsugi.registry.records import LogState, ReplicaState
from kintsugi.registry.store import Delete
from kintsugi.registry.watch import RegistryHealth
from shard.replica import ReplicaPhase
from shard.storage import Storage

OUT_OF_SYNC, IN_SYNC = ReplicaState.OUT_OF_SYNC, ReplicaState.IN_SYNC


def documents(server, uid="c1"):
    return server.replica(uid).engine.documents


def open_storage(server, uid="c1") -> Storage:
    """The database of a server that is stopped."""
    return Storage.open(
        server.folders.replica(uid, 0).database,
        stored=StoredType.F32,
        models={1: 4},
        map_size=2**30,
        max_bytes=2**30,
    )


async def two_servers(fleet):
    """A collection with ten documents on two servers."""
    a, b = await fleet.start("a"), await fleet.start("b")
    await fleet.create(a, b)
    await fleet.write(1, 10)
    return a, b


async def serves_all(soon, seq, *servers):
    for server in servers:
        await soon(lambda server=server: server.is_serving(seq), f"all {seq} are served")
        await soon(lambda server=server: server.state() is IN_SYNC, "the replica is in sync")


async def test_a_replica_that_lost_its_data_copies_it_from_a_peer(fleet, soon):
    """The log no longer has the first writes; the peer does. Health says SERVING only when the copy serves."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await fleet.stop("b")
    remove_folder(b.folders.root / "replicas")
    await trim_log(fleet, soon, b, 11, 20)
    b = await fleet.start("b", known=False)
    await soon(lambda: b.parts.lifecycle.state is LifecycleState.SERVING, "the server serves")
    assert b.is_serving()
    await serves_all(soon, 20, a, b)
    assert documents(b) == 20


async def trim_log(fleet, soon, absent, first, last):
    """Writes until the log no longer holds what the absent replica lacks."""
    await fleet.set_state(absent, OUT_OF_SYNC)
    await fleet.positions.drop("c1", 0, absent.member)
    await fleet.write(first, last - 1)
    (present,) = fleet.servers.values()
    await soon(lambda: present.is_serving(last - 1), "the peer has it all")
    await fleet.positions.report("c1", 0, present.member, last - 1)
    await fleet.write(last, last)
    assert (await fleet.reader().head()).first_seq > 11


async def test_a_replica_that_the_log_was_trimmed_beyond_copies_from_a_peer(fleet, soon):
    """What it had is replaced; nothing of it differs, so nothing is saved for people."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await fleet.stop("b")
    await trim_log(fleet, soon, b, 11, 20)
    b = await fleet.start("b")
    await serves_all(soon, 20, a, b)
    assert documents(b) == 20
    assert not b.folders.diverged.exists()
    await fleet.write(21, 22)
    await serves_all(soon, 22, a, b)


async def test_the_only_replica_that_lost_its_disk_does_not_speak_for_the_shard(fleet, soon):
    """The log was trimmed to what it once held: it fails and says so, and the log is left as it is for its disk."""
    a = await fleet.start("a")
    await fleet.create(a)
    await fleet.write(1, 9)
    await serves_all(soon, 9, a)
    await fleet.positions.report("c1", 0, a.member, 9)
    await fleet.write(10, 10)
    await serves_all(soon, 10, a)
    await fleet.stop("a")
    remove_folder(a.folders.root / "replicas")
    a = await fleet.start("a", known=False)
    await soon(lambda: a.hosts() and a.replica().phase is ReplicaPhase.FAILED, "the replica fails")
    assert "no in-sync peer can be copied from" in a.replica().message
    shard = await fleet.shard()
    assert (shard.log_state, shard.epoch) == (LogState.OPEN, 1)
    assert (await fleet.reader().head()).position.seq == 10


@pytest.mark.parametrize("written_meanwhile", [1, 6])
async def test_a_divergent_tail_is_saved_for_people_and_never_applied(fleet, soon, put_record, written_meanwhile):
    """A replica out of sync gives way to the log, whether its own tail is longer or shorter than what was written
    meanwhile; the log is not rebuilt for it."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await fleet.stop("b")
    await fleet.set_state(b, OUT_OF_SYNC)
    storage = open_storage(b)
    digest, strange = storage.position.digest, []
    for seq, records in ((11, [put_record(1011)]), (13, [put_record(1012), put_record(1013)])):
        (payload,) = pack(records)
        digest = extend(digest, seq, payload.data)
        strange.append(LogEntry(1, seq, payload.data, digest, payload.records))
    storage.apply(strange)
    storage.close()
    await fleet.write(11, 10 + written_meanwhile)

    b = await fleet.start("b")
    await serves_all(soon, 10 + written_meanwhile, a, b)
    (saved,) = b.folders.diverged.iterdir()
    lines = [json.loads(line) for line in saved.read_text().splitlines()]
    assert [line["seq"] for line in lines] == [11, 12, 13]
    assert [parse_record(base64.b64decode(line["record"])).id for line in lines] == [
        encode(1011), encode(1012), encode(1013)
    ]  # fmt: skip
    assert b.replica().engine.storage.get([encode(1011)]) == [None]
    assert documents(b) == 10 + written_meanwhile
    assert (await fleet.shard()).epoch == 1, "nothing was lost, so nothing had to be recovered"


async def test_a_wiped_redis_is_restored_from_what_the_servers_keep(fleet, soon):
    """Registry and log come back under a higher incarnation and epoch; numbers go on; a discarded write is Aborted."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    survived = (await fleet.reader().head()).position
    await fleet.redis.flushall()
    for server in (a, b):
        await soon(lambda server=server: server.parts.watcher.view.snapshot.incarnation == 2, "the registry is back")
        await soon(lambda server=server: server.shard().log_state is LogState.OPEN, "the log is back")
        assert server.is_serving(10), "searches go on"
    shard = await fleet.shard()
    assert (shard.epoch, set(shard.in_sync)) == (2, {a.member, b.member})
    assert (await fleet.write(11, 12)).first_seq == 11
    await serves_all(soon, 12, a, b)
    await a.replica().hold(survived, 5, searchable=True)
    lost = Position(1, 11, b"x" * 20)
    with pytest.raises(Aborted, match="discarded by recovery"):
        await a.replica().hold(lost, 5, searchable=False)


async def test_a_replica_of_an_older_epoch_does_not_speak_of_a_later_one(fleet, soon):
    """It holds as many records, of a history that recovery left behind, and does not know it yet. To say that a write of
    the later epoch was discarded would be wrong, and to say that it is there as well."""
    a = await fleet.start("a")
    await fleet.create(a)
    await fleet.write(1, 10)
    await soon(lambda: a.is_serving(10), "the writes are served")
    for digest in (b"x" * 20, a.replica().engine.storage.digest_at(9)):
        with pytest.raises(Unavailable, match="into epoch 2 yet"):
            await a.replica().hold(Position(2, 9, digest), 5, searchable=True)


async def test_an_older_redis_is_brought_up_to_what_the_servers_keep(fleet, soon):
    """Redis goes back to an old file: the collection created since is there again, and so are the writes."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    old = {key: await fleet.redis.dump(key) for key in await fleet.redis.keys()}
    await fleet.write(11, 15)
    await serves_all(soon, 15, a, b)
    await fleet.create(a, b, uid="c2")
    await fleet.write(1, 3, uid="c2")
    for server in (a, b):
        await soon(lambda server=server: server.is_serving(3, "c2"), "the second collection is served")
    async with fleet.redis.pipeline(transaction=True) as pipe:
        pipe.flushall()
        for key, value in old.items():
            pipe.restore(key, 0, value)
        await pipe.execute()
    for server in (a, b):
        for uid in ("c1", "c2"):
            await soon(
                lambda server=server, uid=uid: (
                    server.parts.watcher.view.snapshot.incarnation == 2 and server.shard(uid).log_state is LogState.OPEN
                ),
                "registry and logs are back",
            )
    assert (await fleet.write(16, 16)).first_seq == 16
    assert (await fleet.write(4, 4, uid="c2")).first_seq == 4
    await serves_all(soon, 16, a, b)
    assert documents(b) == 16


async def test_recovery_waits_for_every_replica_that_may_hold_a_write(fleet, soon):
    """With one in-sync replica away writes stay refused, whoever says that it left; they go on when it is back."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await fleet.stop("b")
    await fleet.redis.flushall()
    key = ("c1", 0)
    await soon(lambda: "waits for replicas on" in a.parts.guardian.waiting.get(key, ""), "recovery says what it awaits")
    assert (await fleet.shard()).log_state is LogState.RECOVERING
    b = await fleet.start("b")
    await soon(lambda: b.shard().log_state is LogState.OPEN, "the log is back")
    assert (await fleet.write(11, 11)).first_seq == 11
    await serves_all(soon, 11, a, b)


async def test_an_accepted_loss_is_rebuilt_from_whoever_is_left(fleet, soon):
    """The only in-sync replica is given up: one that was out of sync takes over, under an epoch of its own."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await fleet.stop("a")
    await fleet.set_state(b, OUT_OF_SYNC)

    def accept(view):
        shard = view.shards["c1", 0]
        states = {a.member: IN_SYNC, b.member: OUT_OF_SYNC}
        return [
            msgspec.structs.replace(
                shard, replicas=states, log_state=LogState.RECOVERING, given_up=(a.member,)
            )
        ]  # fmt: skip

    await fleet.store.update(accept)
    await soon(lambda: b.shard().epoch == 2, "the log is back")
    shard = await fleet.shard()
    assert shard.replicas == {a.member: OUT_OF_SYNC, b.member: IN_SYNC}
    assert (await fleet.write(11, 11)).first_seq == 11
    a = await fleet.start("a")
    await serves_all(soon, 11, a, b)


async def test_a_recovery_that_cannot_go_on_says_why(fleet, soon, stub_of):
    """Whoever asks its server for the status is told, until the log is open again."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await fleet.stop("b")
    change = {"log_state": LogState.RECOVERING}
    await fleet.store.update(lambda view: [msgspec.structs.replace(view.shards["c1", 0], **change)])

    async def told():
        answer = await stub_of(a, a).GetServerStatus(shard_pb2.GetServerStatusRequest())
        return answer.replicas[0].recovery

    await soon(lambda: a.parts.guardian.waiting, "an attempt has failed")
    assert f"recovery waits for replicas on {b.member}" in await told()
    await fleet.start("b")
    await soon(lambda: a.shard().log_state is LogState.OPEN and not a.parts.guardian.waiting, "the log is back")
    assert await told() == ""


async def test_a_log_is_rebuilt_above_every_epoch_that_a_replica_promised(fleet, soon):
    """A registry that forgot epochs does not lead replicas into one that they have promised to ignore."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await b.replica().fence(7)
    await fleet.redis.delete(fleet.keys.shard("c1", 0).head, fleet.keys.shard("c1", 0).log)
    await soon(lambda: a.shard().epoch > 7 and a.shard().log_state is LogState.OPEN, "the log is back")
    await fleet.write(11, 11)
    await serves_all(soon, 11, a, b)


async def test_a_full_replica_stops_alone_and_comes_back_with_more_room(fleet, soon):
    """It says so and leaves the in-sync set; its peer goes on; with a higher quota it catches up."""
    a = await fleet.start("a", "--max-replica-bytes", str(2**20))
    b = await fleet.start("b")
    await fleet.create(a, b)
    for first in range(1, 41, 4):
        await fleet.write(first, first + 3, text="x" * 30_000)
    await soon(lambda: a.replica().phase is ReplicaPhase.FAILED, "the full replica stops")
    assert "its quota is 1048576" in a.replica().message
    with pytest.raises(Unavailable, match="its quota is"):
        a.replica().answering()
    await soon(lambda: b.is_serving(40) and b.shard().in_sync == (b.member,), "its peer goes on alone")
    told = await b.parts.host._around.peers.stub(a.member).GetServerStatus(shard_pb2.GetServerStatusRequest())
    assert told.replicas[0].status.phase in ("failed", "replaying")
    assert "its quota is" in told.replicas[0].status.message
    await fleet.stop("a")
    a = await fleet.start("a")
    await serves_all(soon, 40, a, b)
    assert documents(a) == 40


def tear(server):
    """Cuts the database of a stopped server short."""
    file = server.folders.replica("c1", 0).database / "data.mdb"
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


async def test_a_torn_database_is_kept_for_people_and_copied_from_a_peer(fleet, soon):
    """The replica serves again from the copy, and the torn file lies in corrupt/."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await fleet.stop("b")
    tear(b)
    b = await fleet.start("b")
    await soon((b.folders.root / "corrupt").exists, "the torn database is set aside")
    await serves_all(soon, 10, a, b)
    assert documents(b) == 10
    (kept,) = (b.folders.root / "corrupt").iterdir()
    assert (kept / "data.mdb").exists()


async def test_a_torn_database_without_a_peer_is_left_to_people(fleet, soon):
    """The only copy stays where it is; the replica says that it failed, and so does the server's status."""
    a = await fleet.start("a")
    await fleet.create(a)
    await fleet.write(1, 10)
    await serves_all(soon, 10, a)
    await fleet.stop("a")
    tear(a)
    a = await fleet.start("a")
    await soon(lambda: a.hosts() and a.replica().phase is ReplicaPhase.FAILED, "the replica fails")
    assert "its pages need" in a.replica().message
    assert (a.folders.replica("c1", 0).database / "data.mdb").exists()
    assert not (a.folders.root / "corrupt").exists()
    assert a.state() is IN_SYNC, "the last in-sync replica never leaves"
    await soon(lambda: a.parts.lifecycle.state is LifecycleState.SERVING, "the server serves what it can")


async def test_searches_go_on_while_redis_is_away_and_writes_after_it(new_fleet, new_valkey, soon):
    """Killed and restarted, Valkey still has everything: nothing is recovered, and replay goes on."""
    valkey = new_valkey()
    fleet = await new_fleet(valkey)
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    valkey.kill()
    await soon(lambda: a.parts.watcher.health is RegistryHealth.UNREACHABLE, "the loss is noticed")
    assert a.is_serving(10)
    await asyncio.to_thread(valkey.start)
    await fleet.write(11, 11)
    await serves_all(soon, 11, a, b)
    assert (await fleet.shard()).epoch == 1


async def test_a_server_that_stops_while_it_copies_starts_over(fleet, soon):
    """Stopping in the middle of a bootstrap leaves nothing half done, and takes no time."""
    a, b = await two_servers(fleet)
    await serves_all(soon, 10, a, b)
    await fleet.stop("b")
    remove_folder(b.folders.root / "replicas")
    await trim_log(fleet, soon, b, 11, 20)
    b = await fleet.start("b")
    await soon(b.hosts, "the replica is placed")
    await fleet.stop("b")
    b = await fleet.start("b")
    await serves_all(soon, 20, a, b)
    assert not list(b.folders.root.glob("replicas/c1/0/incoming"))


async def test_a_deleted_collection_goes_with_its_data_and_an_unknown_one_is_kept(fleet, soon):
    """What the registry deleted is removed; what a restored registry does not know is moved to orphaned/."""
    a, _ = await two_servers(fleet)
    await fleet.create(a, uid="c2")
    (a.folders.root / "replicas" / "c3" / "0").mkdir(parents=True)
    await fleet.store.update(lambda view: [Delete("collection/c2"), Delete("shard/c2/0")])
    await soon(lambda: not a.hosts("c2"), "the deleted collection is closed")
    await soon(lambda: not a.folders.replica("c2", 0).path.exists(), "the deleted collection is removed")
    await soon(lambda: list(a.folders.root.glob("orphaned/c3-0-*")), "the unknown one is set aside")
    assert a.hosts("c1")


async def read_from(peers, server, data):
    """Puts it there, and once more when the server has just seen the registry change: what no upgrade names is removed then."""
    while True:
        server.folders.artifacts.mkdir(exist_ok=True)
        (server.folders.artifacts / artifact.digest(data)).write_bytes(data)
        with contextlib.suppress(NotFound):
            return await peers.artifact(server.member, artifact.digest(data))


async def test_a_server_reads_the_artifacts_of_its_peers(fleet, soon):
    """In chunks, whatever their size; what a peer does not hold it says."""
    a, b = await fleet.start("a"), await fleet.start("b")
    data = os.urandom(2 * MAX_ARTIFACT_CHUNK_BYTES + 3)
    peers = b.parts.host._around.peers
    await soon(lambda: a.member in peers.others(b.member), "each knows the other")
    assert await read_from(peers, a, data) == data
    with pytest.raises(NotFound, match="is not held here"):
        await peers.artifact(a.member, artifact.digest(b"another"))
