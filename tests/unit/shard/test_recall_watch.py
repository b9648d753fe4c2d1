"""The recall of live searches is measured in the background."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from kintsugi.cancelling import end
from kintsugi.metrics import Metric
from shard.indexer import IndexerSettings
from shard.rebuild_policy import RebuildSettings
from shard.recall_samples import RecallSamples
from shard.recall_watch import RecallWatch
from shard.search_call import SearchCall
from shard.searcher import Searcher

PLAIN = IndexerSettings(rebuild=RebuildSettings(calibrate_at=10_000))


class Estimates:
    """Notes what the watch asks for."""

    def __init__(self):
        self.asked = []

    def measure(self, crossing, lacking):
        self.asked.append((crossing, lacking))


class Windows:
    """Ends a window whenever the test says so."""

    def __init__(self):
        self.waiting = asyncio.Event()
        self._ends = asyncio.Queue()

    async def sleep(self, _seconds):
        self.waiting.set()
        await self._ends.get()
        self.waiting.clear()

    async def end(self):
        await asyncio.wait_for(self.waiting.wait(), 30)
        self.waiting.clear()
        self._ends.put_nowait(None)
        await asyncio.wait_for(self.waiting.wait(), 30)


@pytest.fixture
async def watched(open_replica):
    """A replica with 300 documents whose searches are sampled, and the watch over it."""
    replica = open_replica(8, Metric.L2)
    stored = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    async with replica.serving(PLAIN) as (indexer, _):
        recall = RecallSamples(20)
        searcher = Searcher(replica.storage, indexer, observe=recall.observe)
        searcher.start()
        replica.put(dict(enumerate(stored)))
        await replica.caught_up(indexer)
        index = SimpleNamespace(
            source=replica.storage, indexer=indexer, searcher=searcher, recall=recall, quality=Estimates(),
            model=SimpleNamespace(name="m", number=2),
        )  # fmt: skip
        engine = SimpleNamespace(
            models={"m": index}, closing=threading.Event(), crossing="crossing of {}".format, storage=replica.storage
        )
        hosted = SimpleNamespace(engine=engine, collection=SimpleNamespace(name="docs"), ref=SimpleNamespace(shard=0))
        windows = Windows()
        running = asyncio.create_task(RecallWatch(lambda: [hosted], 30, windows.sleep).run())

        async def search(count, **options):
            for query in stored[:count]:
                await searcher.search(SearchCall(query.reshape(1, -1), 10, **options))
            # A search is noted behind its answer, but before the next one is taken up.
            await searcher.search(SearchCall(stored[:1], 1, is_live=False))

        yield SimpleNamespace(engine=engine, index=index, windows=windows, search=search, running=running)
        await end((running,))
        await asyncio.to_thread(searcher.close)


async def test_live_searches_are_measured(watched):
    """After a window the recall of its searches is known, and their repetition is not sampled itself."""
    await watched.search(15)
    await watched.windows.end()
    known = watched.index.recall.recall
    assert (known.index_version, known.all.recall) == (watched.index.indexer.serving.number, 1.0)
    assert known.all.queries == 15
    assert watched.index.recall.take() == []


async def test_a_worse_index_shows(watched):
    """What the index lost is missed by the searches of the next window."""
    watched.index.indexer.serving.index.remove(np.arange(1, 201, dtype=np.uint64))
    await watched.search(20)
    await watched.windows.end()
    assert watched.index.recall.recall.all.recall < 0.8


async def test_searches_become_as_broad_as_they_must_be(watched):
    """What a window's searches missed, the next ones look for further."""
    index = watched.index.indexer.serving.index
    before = index.breadth.value
    index.remove(np.arange(1, 201, dtype=np.uint64))
    for _ in range(3):
        await watched.search(20)
        await watched.windows.end()
    assert index.breadth.value == round(before * 1.5)


async def test_searches_that_say_how_broad_they_are_teach_nothing(watched):
    """What they miss, they were told to miss."""
    index = watched.index.indexer.serving.index
    before = index.breadth.value
    index.remove(np.arange(1, 201, dtype=np.uint64))
    for _ in range(3):
        await watched.search(20, ef_search=50)
        await watched.windows.end()
    assert index.breadth.value == before
    assert watched.index.recall.recall.all.recall < 0.8


async def test_without_searches_nothing_is_done(watched):
    """An idle replica is not scanned."""
    await watched.windows.end()
    assert watched.index.recall.recall.all is None


async def test_what_an_upgrade_costs_is_estimated(watched):
    """At the end of each window, with the part of the documents that lack a vector now."""
    await watched.windows.end()
    await watched.windows.end()
    assert watched.index.quality.asked == [("crossing of m", 1.0)] * 2


async def test_a_defect_does_not_end_the_watch(watched):
    """The samples are dropped, the next ones are measured."""
    source, watched.index.source = watched.index.source, None
    await watched.search(5)
    await watched.windows.end()
    watched.engine.closing.set()
    watched.index.source = source
    await watched.search(5)
    await watched.windows.end()
    assert watched.index.recall.recall.all is None
    watched.engine.closing.clear()
    await watched.search(5)
    await watched.windows.end()
    assert watched.index.recall.recall.all.recall == 1.0


async def test_it_can_be_off():
    """Then it ends at once."""
    await asyncio.wait_for(RecallWatch(list, 0).run(), 10)
