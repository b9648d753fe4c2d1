"""What a recovery rests on: it asks nobody for a promise, and empties no log, for a shard that needs none any more."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from kintsugi.cancelling import end
from kintsugi.errors import Unavailable
from kintsugi.keys import Keys
from kintsugi.log.append import LogWriter
from kintsugi.log.read import LogReader
from kintsugi.log.restore import LogRestorer
from kintsugi.redis_client import connect
from kintsugi.registry.records import Defaults, EpochStart, LogState, ReplicaState, Shard
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryWatcher
from shard.recovery import Guardian

ME = "me"
RECOVERING = Shard("c1", 0, (EpochStart(1, 0),), LogState.RECOVERING, {ME: ReplicaState.IN_SYNC})


class Peers:
    """Peers that note what they are asked to promise."""

    def __init__(self) -> None:
        self.promises: list[int] = []

    async def position(self, member, replica, *, fence_epoch=0, digest_at=0):
        self.promises.append(fence_epoch)
        raise Unavailable("silent")


@pytest.fixture
async def redis(valkey):
    client = connect(valkey.url)
    yield client
    await client.aclose()


async def test_a_recovery_that_comes_late_leaves_the_open_log_alone(redis, soon):
    """Another server has opened the log while this one, which still knows it as recovering, got the lease. A promise to
    ignore the open epoch would stop all writes to the shard."""
    keys, peers = Keys("test"), Peers()
    store = RegistryStore(redis, keys)
    watcher = RegistryWatcher(store)
    await store.init("cluster-1", Defaults())
    await store.update(lambda _: [RECOVERING])
    await LogWriter(redis, keys, max_log_bytes=2**20).create("c1", 0, 1, 2, [ME])
    await watcher.refresh()
    opened = msgspec.structs.replace(RECOVERING, log_state=LogState.OPEN, epochs=(*RECOVERING.epochs, EpochStart(2, 0)))
    await store.update(lambda _: [opened])
    around = SimpleNamespace(
        member=ME,
        store=store,
        watcher=watcher,
        reader=lambda uid, shard: LogReader(redis, keys, uid, shard),
        peers=peers,
    )
    guardian = Guardian(around, LogRestorer(redis, keys))
    guarding = asyncio.create_task(guardian.run())
    try:
        await soon(lambda: "changed before" in guardian.waiting.get(("c1", 0), ""), "it reads the registry again")
    finally:
        await end([guarding])
    assert peers.promises == []
    assert (await LogReader(redis, keys, "c1", 0).head()).position.epoch == 2
