"""What the registry is told of index versions."""

import asyncio

import pytest

from kintsugi.cancelling import end
from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.index_versions import IndexVersionEvent as Event
from kintsugi.registry.records import (
    Collection,
    Defaults,
    EpochStart,
    IndexVersion,
    IndexVersionState,
    LogState,
    Model,
    ReplicaState,
    Shard,
)
from kintsugi.registry.store import Delete, RegistryStore
from kintsugi.registry.watch import RegistryWatcher
from shard.index_reports import IndexReports

ME = "me"
COLLECTION = Collection("c1", "c1", 1, 1, Metric.L2, StoredType.F32, (Model(1, "m", 4, Metric.L2),), "m", 1)
SHARD = Shard("c1", 0, (EpochStart(1, 0),), LogState.OPEN, {ME: ReplicaState.IN_SYNC})
BUILDING, SERVING, RETIRED = IndexVersionState.BUILDING, IndexVersionState.SERVING, IndexVersionState.RETIRED


@pytest.fixture
async def store(redis, keys):
    store = RegistryStore(redis, keys)
    await store.init("cluster-1", Defaults())
    await store.update(lambda _: [COLLECTION, SHARD])
    return store


@pytest.fixture
async def reports(store):
    watcher = RegistryWatcher(store)
    await watcher.refresh()
    reports = IndexReports(watcher, ME)
    running = asyncio.create_task(reports.run())
    yield reports
    await end((running,))


@pytest.fixture
def opened(reports):
    """Opens the replica: the callback that its indexer gets."""
    return lambda: reports.reporter(COLLECTION, 0, asyncio.get_running_loop()).of(COLLECTION.serving_model)


@pytest.fixture
def tells(reports, soon):
    """Waits until the registry lists exactly these versions, by number."""

    async def tells(**states):
        wanted = {int(name.removeprefix("v")): state for name, state in states.items()}

        def listed():
            found = reports._watcher.view.index_versions.get(("c1", 0, ME), [])
            return {version.version: version.state for version in found}

        await soon(lambda: listed() == wanted, f"the registry says {wanted}")

    return tells


async def test_a_swap_shows_both_versions_in_their_new_states(opened, tells):
    """The new one serves and the old one is retired by the same write, along the table."""
    report = opened()
    for event in (Event.BEGUN, Event.BUILT, Event.SWAPPED_IN):
        report(1, "f32", event)
    report(2, "i8", Event.BEGUN)
    await tells(v1=SERVING, v2=BUILDING)
    report(2, "i8", Event.BUILT)
    report(2, "i8", Event.SWAPPED_IN)
    await tells(v1=RETIRED, v2=SERVING)


async def test_a_build_that_failed_is_retired_and_forgotten_in_time(opened, tells):
    """Retired versions stay until two newer ones are there."""
    report = opened()
    report(1, "i8", Event.LOADED)
    for number in (2, 3, 4):
        report(number, "i8", Event.BEGUN)
        report(number, "i8", Event.FAILED)
    await tells(v1=SERVING, v3=RETIRED, v4=RETIRED)


async def test_a_replica_that_is_opened_again_begins_anew(opened, tells, store):
    """Whatever the registry says of the opening before, half a build and the version that served, is over; also when it
    was another process, and when the one before still reports."""
    left = [IndexVersion("c1", 0, ME, number, "m", "i8", state) for number, state in ((1, RETIRED), (2, SERVING))]
    await store.update(lambda _: [*left, IndexVersion("c1", 0, ME, 3, "m", "i8", BUILDING)])
    before, after = opened(), opened()
    before(7, "i8", Event.LOADED)
    after(1, "i8", Event.LOADED)
    await tells(v1=SERVING)


async def test_what_the_registry_forgot_is_told_with_the_next_event(opened, tells, store):
    """After a loss the registry mirrors the replica again."""
    report = opened()
    report(1, "f32", Event.LOADED)
    await tells(v1=SERVING)
    await store.update(lambda _: [Delete("index/c1/0/me/1")])
    report(2, "i8", Event.BEGUN)
    await tells(v1=SERVING, v2=BUILDING)
