"""What the watcher adopts, and what it refuses."""

import asyncio

import pytest

from kintsugi.errors import Unavailable
from kintsugi.redis_client import check_server, connect
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Defaults, Member, Role, Snapshot
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryHealth, RegistryWatcher


class ManualClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def store(redis, keys):
    return RegistryStore(redis, keys)


@pytest.fixture
def watch():
    """Runs watchers until the test ends."""
    stops = []

    async def start(watcher):
        stop = asyncio.Event()
        stops.append((stop, asyncio.create_task(watcher.run(stop))))
        return watcher

    return start, stops


@pytest.fixture
async def run(watch):
    start, stops = watch
    yield start
    for stop, task in stops:
        stop.set()
        await asyncio.wait_for(task, 5)


def put(name):
    return lambda _: [Member(name, Role.SHARD, "127.0.0.1:1", "1")]


async def test_changes_are_adopted_as_they_happen(store, run):
    """A running watcher sees the registry's creation and each change of it, and tells its subscribers."""
    watcher = await run(RegistryWatcher(store))
    calls = []
    unsubscribe = watcher.subscribe(lambda: calls.append(watcher.health))
    assert await watcher.wait_for(lambda _, health: health is RegistryHealth.MISSING, 5)
    await store.init("c1", Defaults())
    assert await watcher.wait_for(lambda view, _: view is not None, 5)
    await store.update(put("a"))
    assert await watcher.wait_for(lambda view, _: "a" in view.members, 5)
    assert watcher.health is RegistryHealth.OK
    assert RegistryHealth.OK in calls
    unsubscribe()
    assert not await watcher.wait_for(lambda view, _: "never" in view.members, 0.01)


async def test_a_snapshot_is_persisted_before_it_is_adopted(store):
    """What is adopted was persisted first; what cannot be persisted is not adopted, and the watch goes on."""
    await store.init("c1", Defaults())
    persisted = []
    full = True

    async def persist(snapshot):
        assert watcher.view is None
        if full:
            raise OSError("no space left")
        persisted.append(snapshot)

    watcher = RegistryWatcher(store, None, persist)
    await watcher.refresh()
    assert (watcher.view, watcher.health) == (None, RegistryHealth.UNREACHABLE)
    assert "no space left" in watcher.message
    full = False
    await watcher.refresh()
    assert persisted == [watcher.view.snapshot]
    assert watcher.health is RegistryHealth.OK


async def test_those_who_wait_for_a_reading_share_the_next_one(store):
    """A hundred shards that ask at once while Redis is slow cost two readings: the one under way may have begun too early
    for them, the next one serves all."""
    await store.init("c1", Defaults())
    going_on, read_after, reads = asyncio.Event(), store.read_after, []

    async def read_slowly(known):
        reads.append(None)
        await going_on.wait()
        return await read_after(known)

    store.read_after = read_slowly
    watcher = RegistryWatcher(store)
    asked = [asyncio.create_task(watcher.refresh()) for _ in range(100)]
    await asyncio.wait(asked, timeout=0)
    going_on.set()
    await asyncio.gather(*asked)
    assert watcher.health is RegistryHealth.OK
    assert len(reads) == 2
    await watcher.refresh()
    assert len(reads) == 3


async def test_a_reading_that_was_cancelled_serves_nobody(store):
    """Who waited behind it reads for himself."""
    await store.init("c1", Defaults())
    watcher = RegistryWatcher(store)
    first, second = asyncio.create_task(watcher.refresh()), asyncio.create_task(watcher.refresh())
    await asyncio.wait([first, second], timeout=0)
    first.cancel()
    await asyncio.wait([first])
    await second
    assert watcher.health is RegistryHealth.OK


async def test_a_server_that_would_lose_data_is_never_believed(redis, store):
    """Whether it was so at the start or came back so: it counts as unreachable, the message says what to set, and once
    that is set all is well. A server that stays reachable is not asked again."""
    await store.init("c1", Defaults())
    checks = []

    async def check():
        checks.append(None)
        await check_server(redis)

    watcher = RegistryWatcher(store, check_server=check)
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        await watcher.refresh()
        assert (watcher.view, watcher.health) == (None, RegistryHealth.UNREACHABLE)
        assert "maxmemory-policy noeviction" in watcher.message
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    await watcher.refresh()
    await watcher.refresh()
    assert watcher.health is RegistryHealth.OK
    assert len(checks) == 2


async def test_a_server_is_checked_again_after_an_outage(new_valkey, keys):
    """Another server may stand where the old one did."""
    server, checks = new_valkey(), []

    async def check():
        checks.append(None)

    client = connect(server.url)
    store = RegistryStore(client, keys)
    await store.init("c1", Defaults())
    watcher = RegistryWatcher(store, check_server=check)
    await watcher.refresh()
    server.kill()
    await watcher.refresh()
    assert watcher.health is RegistryHealth.UNREACHABLE
    server.start()
    checks.clear()
    await watcher.refresh()
    assert watcher.health is RegistryHealth.OK
    assert len(checks) == 1
    await client.aclose()


async def test_a_wiped_redis_is_missing_and_the_view_stays(store, redis):
    """FLUSHALL changes the health, not the view, and updates are refused."""
    await store.init("c1", Defaults())
    known = await store.update(put("a"))
    watcher = RegistryWatcher(store)
    await watcher.refresh()
    await redis.flushall()
    await watcher.refresh()
    assert watcher.health is RegistryHealth.MISSING
    assert watcher.health.is_lost
    assert watcher.view.snapshot == known
    with pytest.raises(Unavailable) as refused:
        await watcher.update(put("b"))
    assert refused.value.reason == "REGISTRY_MISSING"


async def test_another_cluster_is_foreign(store, redis):
    """Another cluster's registry is not adopted, however high its version."""
    await store.init("c1", Defaults())
    watcher = RegistryWatcher(store)
    await watcher.refresh()
    await redis.flushall()
    await store.init("c2", Defaults())
    await store.update(put("a"))
    await watcher.refresh()
    assert watcher.health is RegistryHealth.FOREIGN
    assert watcher.view.snapshot.cluster_id == "c1"
    with pytest.raises(Unavailable) as refused:
        await watcher.update(put("b"))
    assert refused.value.reason == "REGISTRY_FOREIGN"


async def test_an_older_registry_is_regressed_and_then_forked(store, redis):
    """A registry that went back is regressed; once it goes on differently it is forked, at any revision."""
    await store.init("c1", Defaults())
    known = await store.update(put("a"))
    watcher = RegistryWatcher(store, known)
    await redis.flushall()
    await store.init("c1", Defaults())
    await watcher.refresh()
    assert watcher.health is RegistryHealth.REGRESSED
    for name in ("b", "c"):
        with pytest.raises(Unavailable):
            await watcher.update(put(name))
        await store.update(put(name))
        await watcher.refresh()
        assert watcher.health is RegistryHealth.FORKED
    assert watcher.view.snapshot == known


async def test_a_restored_registry_is_adopted(store, redis):
    """After a restoration under a higher incarnation every watcher follows again."""
    await store.init("c1", Defaults())
    known = await store.update(put("a"))
    watcher = RegistryWatcher(store, known)
    await redis.flushall()
    await watcher.refresh()
    token = await store.acquire_recovery("me", 10_000)
    restored = await store.restore(known, known.fields, token)
    await watcher.refresh()
    assert (watcher.health, watcher.view.snapshot) == (RegistryHealth.OK, restored)


async def test_a_trimmed_history_is_adopted(store, redis, keys):
    """When the events no longer reach back to the known revision, the higher revision is adopted."""
    known = await store.init("c1", Defaults())
    watcher = RegistryWatcher(store, known)
    await store.update(put("a"))
    await redis.xtrim(keys.events, maxlen=1, approximate=False)
    await watcher.refresh()
    assert watcher.health is RegistryHealth.OK
    assert "a" in watcher.view.members


async def test_update_adopts_its_own_change_at_once(store):
    """After an update the watcher's view holds it without waiting for an event."""
    await store.init("c1", Defaults())
    watcher = RegistryWatcher(store)
    await watcher.refresh()
    view = await watcher.update(put("a"))
    assert watcher.view.snapshot == view.snapshot
    assert "a" in watcher.view.members


@pytest.mark.parametrize("spoil", ["cluster", "revision", "leases", "events"])
async def test_odd_answers_of_redis_never_end_the_watch(store, redis, keys, run, spoil):
    """A key of the wrong type makes the registry unreachable; once it is right again the watch goes on."""
    await store.init("c1", Defaults())
    known = await store.update(put("a"))
    watcher = await run(RegistryWatcher(store, known))
    assert await watcher.wait_for(lambda _, health: health is RegistryHealth.OK, 5)
    key = getattr(keys, spoil)
    kept = await redis.dump(key)
    await redis.set(key, "a string")
    assert await watcher.wait_for(lambda _, health: health is RegistryHealth.UNREACHABLE, 5)
    assert watcher.view.snapshot == known
    await redis.delete(key)
    if kept is not None:
        await redis.restore(key, 0, kept)
    assert await watcher.wait_for(lambda _, health: health is RegistryHealth.OK, 5)


async def test_undecodable_records_are_not_adopted(store):
    """A record that this version cannot read leaves the view as it was."""
    base = await store.init("c1", Defaults())
    watcher = RegistryWatcher(store, base)
    await store.commit(base, {"member/a": b"not json"})
    await watcher.refresh()
    assert watcher.health is RegistryHealth.UNREACHABLE
    assert watcher.view.snapshot == base


async def test_the_watch_survives_a_restart_of_redis(new_valkey, keys, run):
    """A killed server makes the registry unreachable, and its restart makes it well again."""
    server = new_valkey()
    client = connect(server.url)
    store = RegistryStore(client, keys)
    await store.init("c1", Defaults())
    watcher = await run(RegistryWatcher(store))
    assert await watcher.wait_for(lambda _, health: health is RegistryHealth.OK, 5)
    server.kill()
    assert await watcher.wait_for(lambda _, health: health is RegistryHealth.UNREACHABLE, 5)
    assert watcher.view is not None
    await asyncio.to_thread(server.start)
    assert await watcher.wait_for(lambda _, health: health is RegistryHealth.OK, 10)
    await client.aclose()


async def test_time_without_lease_counts_only_while_healthy(store, redis):
    """A missing lease counts from when it is first seen missing, and afresh after the registry was unwell."""
    await store.init("c1", Defaults())
    known = await store.update(put("a"))
    clock = ManualClock()
    watcher = RegistryWatcher(store, known, clock=clock)

    async def after(seconds):
        clock.now += seconds
        await watcher.refresh()
        return watcher.seconds_without_lease("a")

    assert await after(0) == 0
    assert await after(2) == 2
    assert await after(2) == 4
    await redis.flushall()
    assert await after(2) == 0
    assert await after(50) == 0
    token = await store.acquire_recovery("me", 10_000)
    await store.restore(known, known.fields, token)
    assert await after(1) == 0
    assert await after(2) == 2
    await store.renew_lease("a", 60_000, LeaseInfo())
    assert await after(2) == 0
    assert watcher.leases == {"a": LeaseInfo()}
    assert watcher.seconds_without_lease("stranger") == 0


async def test_a_pause_of_this_process_does_not_make_others_look_dead(store):
    """However long this process stood still, the time between two reads counts for a few seconds at most."""
    await store.init("c1", Defaults())
    clock = ManualClock()
    watcher = RegistryWatcher(store, await store.update(put("a")), clock=clock)
    await watcher.refresh()
    clock.now += 3600
    await watcher.refresh()
    assert watcher.seconds_without_lease("a") <= 3


async def test_a_failing_subscriber_does_not_end_the_watch(store):
    """A subscriber that raises is logged; the others are called."""
    await store.init("c1", Defaults())
    watcher = RegistryWatcher(store)
    calls = []
    watcher.subscribe(lambda: 1 // 0)
    watcher.subscribe(lambda: calls.append(1))
    await watcher.refresh()
    assert calls == [1]
    assert watcher.health is RegistryHealth.OK


async def test_an_event_without_a_change_does_not_spin(store, redis, keys):
    """An event that the registry does not confirm is answered with pauses, not with reads without end."""
    await store.init("c1", Defaults())
    await redis.xadd(keys.events, {"digest": "x"}, "9-9")
    reads = 0
    read_after = store.read_after

    async def counted(known: Snapshot | None):
        nonlocal reads
        reads += 1
        if reads == 4:
            stop.set()
        return await read_after(known)

    store.read_after = counted
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.wait_for(RegistryWatcher(store).run(stop), 10)
    assert loop.time() - started >= 0.1
