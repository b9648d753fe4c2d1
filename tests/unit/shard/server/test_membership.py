"""What a replica says of itself in a real registry, alone and against others who change it."""

import asyncio

import msgspec
import pytest

from kintsugi.errors import Unavailable
from kintsugi.registry.records import Defaults, EpochStart, LogState, ReplicaState, Shard
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryWatcher
from shard.membership import Membership

IN_SYNC, JOINING, OUT_OF_SYNC = ReplicaState.IN_SYNC, ReplicaState.JOINING, ReplicaState.OUT_OF_SYNC


class Registry:
    """A registry with one shard, and the memberships of its members."""

    def __init__(self, store: RegistryStore) -> None:
        self.store = store
        self.watcher = RegistryWatcher(store)

    async def put(self, log_state: LogState = LogState.OPEN, **states: ReplicaState) -> None:
        await self.store.update(lambda view: [Shard("c", 0, (EpochStart(3, 0),), log_state, states)])
        await self.watcher.refresh()

    async def shard(self) -> Shard:
        snapshot = await self.store.read()
        assert snapshot is not None
        return snapshot.view().shards["c", 0]

    def membership(self, member: str, shard: int = 0) -> Membership:
        return Membership(self.watcher, member, "c", shard)


@pytest.fixture
async def registry(redis, keys) -> Registry:
    store = RegistryStore(redis, keys)
    await store.init("cluster-1", Defaults())
    return Registry(store)


@pytest.mark.parametrize(
    ("call", "before", "after"),
    [
        ("catching_up", OUT_OF_SYNC, JOINING),
        ("catching_up", JOINING, JOINING),
        ("catching_up", IN_SYNC, IN_SYNC),
        ("caught_up", JOINING, IN_SYNC),
        ("caught_up", OUT_OF_SYNC, OUT_OF_SYNC),
        ("caught_up", IN_SYNC, IN_SYNC),
        ("diverged", IN_SYNC, OUT_OF_SYNC),
        ("diverged", JOINING, OUT_OF_SYNC),
        ("diverged", OUT_OF_SYNC, OUT_OF_SYNC),
        ("start_over", IN_SYNC, JOINING),
        ("start_over", JOINING, JOINING),
        ("start_over", OUT_OF_SYNC, JOINING),
    ],
)
async def test_each_call_leads_where_it_says_and_may_be_repeated(registry, call, before, after):
    """From every state, called twice; the other replica is left alone."""
    await registry.put(a=before, b=IN_SYNC)
    for _ in range(2):
        await getattr(registry.membership("a"), call)()
        assert (await registry.shard()).replicas == {"a": after, "b": IN_SYNC}


@pytest.mark.parametrize(
    ("log_state", "states"),
    [(LogState.OPEN, {"a": IN_SYNC, "b": OUT_OF_SYNC}), (LogState.RECOVERING, {"a": IN_SYNC, "b": IN_SYNC})],
)
async def test_who_must_stay_in_sync_cannot_start_over(registry, log_state, states):
    """The last in-sync replica, and any while its log is recovered, keeps its state and learns that it may not go."""
    await registry.put(log_state, **states)
    await registry.membership("a").diverged()
    with pytest.raises(Unavailable, match="still counts as in sync"):
        await registry.membership("a").start_over()
    assert (await registry.shard()).replicas == states


async def test_recovery_is_requested_once_per_epoch(registry):
    """A request for an epoch that is over changes nothing; one for the present epoch stops writes."""
    await registry.put(a=IN_SYNC)
    await registry.membership("a").request_recovery(2)
    assert (await registry.shard()).log_state is LogState.OPEN
    await asyncio.gather(*(registry.membership("a").request_recovery(3) for _ in range(3)))
    requested = await registry.shard()
    assert requested.log_state is LogState.RECOVERING
    revision = (await registry.store.read()).revision
    await registry.membership("a").request_recovery(3)
    assert (await registry.store.read()).revision == revision


async def test_replicas_that_leave_at_once_leave_one_behind(registry):
    """When all in-sync replicas leave at the same time, one of them remains."""
    await registry.put(a=IN_SYNC, b=IN_SYNC, c=IN_SYNC)
    await asyncio.gather(*(registry.membership(member).diverged() for member in "abc"))
    assert len((await registry.shard()).in_sync) == 1


async def test_a_shard_that_is_gone_is_no_error(registry):
    """After the collection was deleted, what a replica still says changes nothing."""
    await registry.put(a=IN_SYNC, b=IN_SYNC)
    before = await registry.shard()
    gone = registry.membership("a", shard=5)
    await gone.diverged()
    await gone.caught_up()
    await gone.request_recovery(3)
    with pytest.raises(Unavailable, match="log is gone"):
        await gone.start_over()
    assert await registry.shard() == before


async def test_a_registry_that_went_back_is_not_changed(registry):
    """While the registry in Redis is not the one we know, nothing is said in it."""
    await registry.put(a=IN_SYNC, b=IN_SYNC)
    known = registry.watcher.view.snapshot
    registry.watcher.view = msgspec.structs.replace(known, revision=known.revision + 5).view()
    with pytest.raises(Unavailable) as refused:
        await registry.membership("a").diverged()
    assert refused.value.reason == "REGISTRY_REGRESSED"
