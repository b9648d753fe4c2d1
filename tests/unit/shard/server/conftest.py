"""Shard servers in this process, over a real Valkey and real gRPC, and the part of coordinators that they need."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest
from redis.asyncio import Redis

from kintsugi.internal.v1 import shard_pb2
from kintsugi.internal.v1.shard_pb2_grpc import ShardStub
from kintsugi.keys import Keys
from kintsugi.local.valkey import Valkey
from kintsugi.log import records
from kintsugi.log.append import AppendRequest, AppendResult, LogTarget, LogWriter
from kintsugi.log.payload import Payload
from kintsugi.log.positions import LogPositions
from kintsugi.log.read import LogReader
from kintsugi.metrics import Metric, StoredType
from kintsugi.position import START, Position
from kintsugi.redis_client import connect
from kintsugi.registry.records import Collection, Defaults, EpochStart, LogState, Model, ReplicaState, Shard
from kintsugi.registry.store import RegistryStore
from kintsugi.settings import load
from shard.__main__ import assemble, run
from shard.folders import Folders
from shard.replica import Replica, ReplicaPhase
from shard.settings import ShardSettings
from shard.storage import StorageEvent, ignore

UID = "c1"
DIMENSION = 4
PATIENCE_S = 40.0


async def until(condition: Callable[[], object], what: str) -> None:
    """Waits on a condition that no event tells of, with a deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while not condition():
        assert loop.time() < end, f"still waiting: {what}"
        await asyncio.sleep(0.01)


class Server:
    """One running shard server."""

    def __init__(self, settings: ShardSettings, observe: Callable[[StorageEvent], None]) -> None:
        self.parts = assemble(settings, observe)
        self.folders = Folders(settings.data)
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(run(self.parts, self._stop))

    @property
    def member(self) -> str:
        return self.parts.member

    def replica(self, uid: str = UID) -> Replica:
        return self.parts.host.replica(shard_pb2.ReplicaRef(collection_uid=uid, shard=0))

    def hosts(self, uid: str = UID) -> bool:
        return any(replica.collection.uid == uid for replica in self.parts.host.replicas)

    def is_serving(self, seq: int = 0, uid: str = UID) -> bool:
        if not self.hosts(uid):
            return False
        replica = self.replica(uid)
        return replica.phase is ReplicaPhase.SERVING and replica.engine.searchable_seq >= seq

    def shard(self, uid: str = UID) -> Shard:
        view = self.parts.watcher.view
        assert view is not None
        return view.shards[uid, 0]

    def state(self, uid: str = UID) -> ReplicaState:
        return self.shard(uid).replicas[self.member]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.wait_for(self._running, PATIENCE_S)


class Fleet:
    """Shard servers of one cluster, and its registry and logs as a coordinator uses them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.folder = folder
        self.keys = Keys("test")
        self.redis: Redis = connect(url)
        self.store = RegistryStore(self.redis, self.keys)
        self.positions = LogPositions(self.redis, self.keys)
        self.writer = LogWriter(self.redis, self.keys, max_log_bytes=2**28)
        self.servers: dict[str, Server] = {}
        self._numbers = count()

    async def start(
        self, name: str, *arguments: str, observe: Callable[[StorageEvent], None] = ignore, known: bool = True
    ) -> Server:
        """Starts a server, with what the environment says of its settings, and waits until the registry knows it."""
        wanted = ["--data", str(self.folder / name), "--redis", self.url, "--namespace", "test", *arguments]
        server = self.servers[name] = Server(load(ShardSettings, wanted, os.environ), observe)
        if known:
            watcher = server.parts.watcher
            await until(
                lambda: (
                    watcher.view
                    and server.member in watcher.view.members
                    and watcher.view.members[server.member].address == server.parts.server.address
                ),
                "the server is in the registry",
            )
        return server

    async def stop(self, name: str) -> None:
        await self.servers.pop(name).stop()

    async def create(self, *servers: Server, uid: str = UID) -> None:
        """Creates a collection of one shard with a replica on each of the servers, and waits until they serve."""
        members = [server.member for server in servers]
        await self.writer.create(uid, 0, 1, 1, members)
        model = Model(1, "m", DIMENSION, Metric.L2)
        collection = Collection(uid, uid, 1, len(members), Metric.L2, StoredType.F32, (model,), "m", 1)
        in_sync = dict.fromkeys(members, ReplicaState.IN_SYNC)
        shard = Shard(uid, 0, (EpochStart(1, 0),), LogState.OPEN, in_sync)
        await self.store.update(lambda view: [collection, shard])
        for server in servers:
            await until(lambda server=server: server.is_serving(0, uid), "the new collection is served")

    async def shard(self, uid: str = UID) -> Shard:
        snapshot = await self.store.read()
        assert snapshot is not None
        return snapshot.view().shards[uid, 0]

    async def write(self, first: int, last: int, *, text: str = "", uid: str = UID) -> AppendResult:
        """Appends the documents `first` to `last` as one request, to the log as the registry describes it."""
        snapshot = await self.store.read()
        assert snapshot is not None
        epoch = snapshot.view().shards[uid, 0].epoch
        target = LogTarget(uid, 0, snapshot.incarnation, epoch, START)
        payloads = [Payload(payload(number, text)) for number in range(first, last + 1)]
        (result,) = await self.writer.append(target, [AppendRequest(f"r{next(self._numbers)}", payloads)], 5.0)
        assert isinstance(result, AppendResult), result
        return result

    def reader(self, uid: str = UID) -> LogReader:
        return LogReader(self.redis, self.keys, uid, 0)

    async def set_state(self, server: Server, state: ReplicaState) -> None:
        """What housekeeping or an operator would say of a replica."""

        def change(view):
            shard = view.shards[UID, 0]
            return [msgspec.structs.replace(shard, replicas={**shard.replicas, server.member: state})]

        await self.store.update(change)

    async def close(self) -> None:
        for server in self.servers.values():
            await server.stop()
        await self.redis.aclose()


def payload(number: int, text: str = "") -> bytes:
    vector = np.full(DIMENSION, number, dtype="<f4").tobytes()
    return records.stamp(records.put(number, {1: vector}, text=text), 7)


@pytest.fixture
async def new_fleet(tmp_path: Path) -> AsyncIterator[Callable[[Valkey], object]]:
    """Makes the fleet of a server of the test's own."""
    fleets: list[Fleet] = []

    async def make(server: Valkey) -> Fleet:
        fleet = Fleet(tmp_path / "fleet", server.url)
        fleets.append(fleet)
        await fleet.store.init("cluster-1", Defaults())
        return fleet

    yield make
    for fleet in fleets:
        await fleet.close()


@pytest.fixture
async def fleet(new_fleet, valkey: Valkey) -> Fleet:
    return await new_fleet(valkey)


@pytest.fixture
def stub_of() -> Callable[[Server, Server], ShardStub]:
    """The stub with which one server asks another."""
    return lambda asker, asked: asker.parts.host._around.peers.stub(asked.member)


@pytest.fixture
def soon() -> Callable:
    """until, for test modules, which cannot import from here."""
    return until


@pytest.fixture
def put_record() -> Callable[..., bytes]:
    return payload


@pytest.fixture
def position_of() -> Callable[[AppendResult], Position]:
    return lambda result: result.last
