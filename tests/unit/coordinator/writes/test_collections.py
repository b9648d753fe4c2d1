"""Creating, finding and deleting collections over a real registry and real logs."""

import asyncio
import time
from types import SimpleNamespace

import msgspec
import pytest

from coordinator.collections import Collections
from coordinator.deadline import Deadline
from coordinator.views import Views
from kintsugi.cancelling import end
from kintsugi.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.append import LogWriter
from kintsugi.log.positions import LogPositions
from kintsugi.log.read import LogReader
from kintsugi.metrics import Metric
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Defaults, Member, Model, Role, Upgrade, UpgradeState
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.upgrades import collection_after
from kintsugi.registry.watch import RegistryWatcher
from kintsugi.v1 import collections_pb2, types_pb2

SERVERS = ("shard-a", "shard-b", "shard-c")


class Servers:
    """Shard servers that host and serve whatever the registry places on them, unless they are slow."""

    def __init__(self, watcher):
        self._watcher = watcher
        self.slow = False

    async def status(self, member):
        response = shard_pb2.GetServerStatusResponse(member=member)
        for shard in self._watcher.view.replicas_on(member):
            hosted = response.replicas.add()
            hosted.replica.collection_uid, hosted.replica.shard = shard.collection_uid, shard.shard
            hosted.status.phase = "replaying" if self.slow else "serving"
        return response


@pytest.fixture
async def cluster(redis, keys):
    """A registry with three shard servers whose leases follow the registry."""
    store = RegistryStore(redis, keys)
    await store.init("c1", Defaults(shards=2, replicas=2))
    await store.update(lambda _: [Member(name, Role.SHARD, f"{name}:1", "1") for name in SERVERS])
    await asyncio.gather(*(store.renew_lease(name, 60_000, LeaseInfo(10**6)) for name in SERVERS))
    watcher = RegistryWatcher(store)
    await watcher.refresh()
    for name in SERVERS:
        await store.renew_lease(name, 60_000, LeaseInfo(watcher.view.snapshot.revision))
    await watcher.refresh()

    async def follow():
        while True:
            for name in SERVERS:
                await store.renew_lease(name, 60_000, LeaseInfo(watcher.view.snapshot.revision))
            await watcher.wait_for(lambda *_: False, 0.02)

    following = asyncio.create_task(follow())
    servers = Servers(watcher)
    writer = LogWriter(redis, keys, max_log_bytes=2**20)
    collections = Collections(watcher, Views(watcher, time.monotonic), writer, servers, lambda: 5)
    yield SimpleNamespace(
        collections=collections, watcher=watcher, store=store, servers=servers, redis=redis, keys=keys
    )
    await end((following,))


def spec(**changes):
    model = types_pb2.Model(name="m1", dimension=3)
    return collections_pb2.CollectionSpec(
        **{"name": "docs", "metric": types_pb2.METRIC_COSINE, "models": [model], **changes}
    )


async def test_created_collection_has_logs_and_in_sync_replicas(cluster, deadline):
    """Two shards on two members each, logs that wait for exactly those members."""
    created = await cluster.collections.create(spec(), deadline)
    view = cluster.watcher.view
    assert view.collections_by_name["docs"] == created
    for shard in view.shards_of(created):
        assert len(shard.in_sync) == 2
        head = await LogReader(cluster.redis, cluster.keys, created.uid, shard.shard).head()
        assert (head.incarnation, head.position.epoch, head.open) == (1, 1, True)
        positions = await LogPositions(cluster.redis, cluster.keys).all(created.uid, shard.shard)
        assert sorted(positions) == sorted(shard.in_sync)


async def test_same_specification_returns_the_existing_collection(cluster, deadline):
    """A repeated call is harmless, also when both run at once."""
    one, other = await asyncio.gather(*(cluster.collections.create(spec(), deadline) for _ in range(2)))
    again = await cluster.collections.create(spec(shards=2), deadline)
    assert one == other == again
    assert len(await cluster.collections.list_all()) == 1


async def test_name_taken_by_another_specification_is_refused(cluster, deadline):
    """The existing collection stays as it is."""
    await cluster.collections.create(spec(), deadline)
    with pytest.raises(AlreadyExists) as caught:
        await cluster.collections.create(spec(shards=3), deadline)
    assert caught.value.field == "spec.name"


async def test_too_few_living_shard_servers_are_refused(cluster, deadline):
    """Nothing is left behind."""
    with pytest.raises(FailedPrecondition, match="only 3"):
        await cluster.collections.create(spec(replicas=4), deadline)
    assert await cluster.collections.list_all() == []


async def test_collection_that_does_not_come_up_in_time_is_unavailable(cluster):
    """The message says who does not serve; repeating the call waits again and succeeds."""
    cluster.servers.slow = True
    with pytest.raises(Unavailable, match="does not serve"):
        await cluster.collections.create(spec(), Deadline.after(0.3, time.monotonic))
    cluster.servers.slow = False
    await cluster.collections.create(spec(), Deadline.after(5, time.monotonic))


async def test_registry_that_went_back_takes_no_collection(cluster, deadline):
    """A lease of a newer revision shows it, also to a coordinator that has just started."""
    await cluster.store.renew_lease("shard-z", 60_000, LeaseInfo(10**9))
    with pytest.raises(Unavailable) as caught:
        await cluster.collections.create(spec(), deadline)
    assert caught.value.reason == "REGISTRY_BEHIND"


async def test_registry_that_went_back_deletes_no_collection(cluster, deadline):
    """What it says of a name may be about an earlier collection; nothing of either is removed."""
    created = await cluster.collections.create(spec(), deadline)
    await cluster.store.renew_lease("shard-z", 60_000, LeaseInfo(10**9))
    with pytest.raises(Unavailable) as caught:
        await cluster.collections.delete("docs")
    assert caught.value.reason == "REGISTRY_BEHIND"
    assert (await cluster.store.read()).view().collections_by_name["docs"] == created
    assert await LogReader(cluster.redis, cluster.keys, created.uid, 0).head() is not None


async def test_missing_registry_takes_no_collection(cluster, deadline):
    """After a wipe everything is refused, and nothing is written to the empty Redis."""
    await cluster.redis.flushall()
    with pytest.raises(Unavailable):
        await cluster.collections.create(spec(), deadline)
    assert await cluster.store.read() is None


async def test_deleted_collection_is_gone_with_its_logs(cluster, deadline):
    """A second delete answers NOT_FOUND."""
    created = await cluster.collections.create(spec(), deadline)
    await cluster.collections.delete("docs")
    assert not cluster.watcher.view.shards
    assert await LogReader(cluster.redis, cluster.keys, created.uid, 0).head() is None
    with pytest.raises(NotFound):
        await cluster.collections.delete("docs")
    with pytest.raises(NotFound):
        await cluster.collections.get("docs", deadline)


async def test_recreated_collection_has_another_uid(cluster, deadline):
    """Old tokens and old logs cannot be taken for the new ones."""
    first = await cluster.collections.create(spec(), deadline)
    await cluster.collections.delete("docs")
    second = await cluster.collections.create(spec(), deadline)
    assert first.uid != second.uid


async def test_a_request_for_an_encoding_is_recorded_and_counted(cluster, deadline):
    """Each call counts, also one that asks for the present encoding; creating the collection again changes nothing."""
    await cluster.collections.create(spec(), deadline)
    i8 = collections_pb2.Encoding(kind=collections_pb2.ENCODING_KIND_I8, oversampling=4)
    for count in (1, 2):
        changed = await cluster.collections.encode("docs", i8)
        assert (changed.encoding.name, changed.encoding.oversampling, changed.encoding_requests) == ("i8", 4, count)
        assert cluster.watcher.view.collections_by_name["docs"] == changed
    assert await cluster.collections.create(spec(), deadline) == changed
    assert (await cluster.collections.encode("docs", collections_pb2.Encoding())).encoding.is_automatic


async def test_an_encoding_that_cannot_be_leaves_the_collection_as_it_is(cluster, deadline):
    """Refused before anything is written; a collection that is not there is not found."""
    created = await cluster.collections.create(spec(), deadline)
    bad = collections_pb2.Encoding(kind=collections_pb2.ENCODING_KIND_I8, prefix=4)
    with pytest.raises(InvalidArgument):
        await cluster.collections.encode("docs", bad)
    assert cluster.watcher.view.collections_by_name["docs"] == created
    with pytest.raises(NotFound):
        await cluster.collections.encode("nobody", collections_pb2.Encoding())


def upgrade_of(collection):
    """A plan to leave the collection's model."""
    new = Model(2, "m2", 4, Metric.COSINE)
    return Upgrade(
        collection.uid, 1, "m1", new, UpgradeState.PLANNED, Strategy.BRIDGE, Calibration.QUANTILES,
        "b", "", "r", "a", "p", 0.99, 0.95, 1, 1,
    )  # fmt: skip


async def test_deleted_collection_takes_its_upgrade_along(cluster, deadline):
    """Another collection of the name begins without one."""
    created = await cluster.collections.create(spec(), deadline)
    await cluster.watcher.update(lambda _: [upgrade_of(created)])
    await cluster.collections.delete("docs")
    assert cluster.watcher.view.upgrades == {}


async def test_collection_that_was_upgraded_is_still_what_was_asked_for(cluster, deadline):
    """The script that created it may be repeated, with the model that it had then or with the one that it has now."""
    created = await cluster.collections.create(spec(), deadline)
    finished = msgspec.structs.replace(upgrade_of(created), state=UpgradeState.FINISHED)
    both = msgspec.structs.replace(created, models=(*created.models, finished.new_model))
    upgraded = collection_after(both, finished)
    await cluster.watcher.update(lambda _: [upgraded])
    for model in (types_pb2.Model(name="m1", dimension=3), types_pb2.Model(name="m2", dimension=4)):
        assert await cluster.collections.create(spec(models=[model]), deadline) == upgraded
    with pytest.raises(AlreadyExists):
        await cluster.collections.create(spec(models=[types_pb2.Model(name="m2", dimension=3)]), deadline)
