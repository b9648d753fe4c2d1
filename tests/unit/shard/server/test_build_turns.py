"""Taking turns: claims in a real registry, between servers and within one."""

import asyncio

import msgspec
import pytest

from kintsugi.cancelling import end
from kintsugi.errors import Unavailable
from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.index_versions import IndexVersionEvent as Event
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import (
    Collection,
    Defaults,
    EpochStart,
    IndexVersionState,
    LogState,
    Model,
    ReplicaState,
    Shard,
)
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryWatcher
from shard.build_turns import BuildTurns
from shard.index_reports import IndexReports

IN_SYNC = ReplicaState.IN_SYNC
COLLECTION = Collection("c1", "docs", 2, 2, Metric.L2, StoredType.F32, (Model(1, "m", 4, Metric.L2),), "m", 1)
ALONE = msgspec.structs.replace(COLLECTION, uid="c2", name="alone", shards=1, replicas=1)


def shard(uid, number, *members):
    return Shard(uid, number, (EpochStart(1, 0),), LogState.OPEN, dict.fromkeys(members, IN_SYNC))


class FragileWatcher(RegistryWatcher):
    """One whose registry cannot be written while it is broken."""

    is_broken = False

    async def update(self, change):
        if self.is_broken:
            raise Unavailable("redis is away")
        return await super().update(change)


class Server:
    """One shard server's part: what it hosts asks for turns and reports."""

    def __init__(self, store, member):
        self.member = member
        self.store = store
        self.watcher = FragileWatcher(store)
        self.reports = IndexReports(self.watcher, member)
        self.turns = BuildTurns(self.watcher, self.reports, member)
        self.woken = []
        self.stop = asyncio.Event()

    async def start(self):
        await self.lives()
        await self.watcher.refresh()
        running = (self.watcher.run(self.stop), self.reports.run(), self.turns.run())
        self.tasks = [asyncio.create_task(work) for work in running]

    async def lives(self, ttl_ms=60_000):
        await self.store.renew_lease(self.member, ttl_ms, LeaseInfo())

    def open(self, collection=COLLECTION, number=0):
        loop = asyncio.get_running_loop()
        reports = self.reports.reporter(collection, number, loop)
        return self.turns.turn_of((collection.uid, number), "m", loop), reports.of("m")

    def asks(self, turn, version, encoding="i8"):
        return turn.ask(version, encoding, lambda: self.woken.append(version))

    def state(self, member, number=0):
        found = self.watcher.view.index_versions.get(("c1", number, member), [])
        return {version.version: version.state.value for version in found}


@pytest.fixture
async def store(redis, keys):
    store = RegistryStore(redis, keys)
    await store.init("cluster-1", Defaults())
    replicas = [shard("c1", 0, "a", "b"), shard("c1", 1, "a", "b"), shard("c2", 0, "a")]
    await store.update(lambda _: [COLLECTION, ALONE, *replicas])
    return store


@pytest.fixture
async def servers(store):
    made = [Server(store, "a"), Server(store, "b")]
    for server in made:
        await server.start()
    yield made
    for server in made:
        server.stop.set()
        await end(server.tasks)


async def test_the_replicas_of_a_shard_build_one_after_the_other(servers, soon):
    """The second begins when the first serves, and not while it builds; the registry says so before it begins."""
    a, b = servers
    (first, report), (second, _) = a.open(), b.open()
    assert not a.asks(first, 1)
    await soon(lambda: a.woken, "a may build")
    assert a.state("a") == {1: "building"}
    assert a.asks(first, 1)
    assert not b.asks(second, 4)
    await soon(lambda: second.waits_for, "b waits")
    assert second.waits_for == "version 1 of the replica on a is building"
    for event in (Event.BEGUN, Event.BUILT, Event.SWAPPED_IN):
        report(1, "i8", event)
    await soon(lambda: b.woken, "b may build")
    assert b.state("a") == {1: "serving"}
    assert b.state("b") == {4: "building"}
    assert b.asks(second, 4)
    assert second.waits_for == ""


async def test_two_that_ask_at_once_do_not_both_build(servers, soon):
    """The compare-and-set lets one of them through."""
    turns = [server.open()[0] for server in servers]
    for server, turn in zip(servers, turns, strict=True):
        server.asks(turn, 1)
    await soon(lambda: any(turn.waits_for for turn in turns) and sum(len(s.woken) for s in servers), "one may")
    assert sum(len(server.woken) for server in servers) == 1


async def test_the_dead_are_waited_for_by_nobody(servers, soon):
    """Half a build of a server without lease stands in nobody's way."""
    a, b = servers
    turn, _ = a.open()
    a.asks(turn, 1)
    await soon(lambda: b.state("a") == {1: "building"}, "b sees it")
    await a.store.release_lease("a")
    other, _ = b.open()
    b.asks(other, 1)
    await soon(lambda: b.woken, "b may build")


async def test_a_replica_that_is_opened_again_stands_in_nobodys_way(servers, soon):
    """What it was building before is over, and the registry is told so at once."""
    a, b = servers
    turn, report = a.open()
    a.asks(turn, 1)
    await soon(lambda: a.woken, "a may build")
    report(1, "i8", Event.BEGUN)
    other, _ = b.open()
    b.asks(other, 1)
    await soon(lambda: other.waits_for, "b waits")
    a.open()
    await soon(lambda: b.woken, "b may build")


async def test_who_changes_its_mind_gives_the_turn_back(servers, soon):
    """Before it was granted or after: the other one may build."""
    a, b = servers
    (first, _), (second, _) = a.open(), b.open()
    a.asks(first, 1)
    await soon(lambda: a.woken, "a may build")
    b.asks(second, 1)
    await soon(lambda: second.waits_for, "b waits")
    first.withdraw()
    await soon(lambda: b.woken, "b may build")
    assert b.state("a") == {}
    a.asks(first, 2)
    await soon(lambda: first.waits_for, "a waits")
    first.withdraw()
    await soon(lambda: not first.waits_for, "a waits no longer")


async def test_one_server_builds_one_version_at_a_time(servers, soon):
    """Two shards on one server: the second waits for the first, though another server could build it meanwhile."""
    a, b = servers
    (first, report), (second, _), (elsewhere, _) = a.open(), a.open(number=1), b.open(number=1)
    a.asks(first, 1)
    await soon(lambda: a.woken == [1], "the first may")
    a.asks(second, 2)
    await soon(lambda: second.waits_for == "version 1 of docs/0 on this server is building", "the second waits")
    b.asks(elsewhere, 3)
    await soon(lambda: b.woken == [3], "the other server builds it")
    report(1, "i8", Event.BEGUN)
    report(1, "i8", Event.FAILED)
    await soon(lambda: second.waits_for == "version 3 of the replica on b is building", "the second waits for b")
    assert a.state("a") == {1: IndexVersionState.RETIRED}


async def test_without_redis_only_those_who_are_alone_build(servers, soon):
    """The others wait, say for what, and go on when it is back."""
    a, _ = servers
    (alone, _), (pair, _) = a.open(ALONE), a.open()
    a.watcher.is_broken = True
    a.asks(pair, 5)
    await soon(lambda: "cannot be asked" in pair.waits_for, "the pair waits")
    a.asks(alone, 6)
    await soon(lambda: a.woken == [6], "who is alone may")
    a.watcher.is_broken = False
    alone.withdraw()
    await soon(lambda: a.woken == [6, 5], "the pair may")
