"""Measuring what searches find of the truth, while writes go on."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kintsugi.errors import Unavailable
from kintsugi.filters.tree import Equals
from kintsugi.metrics import Metric
from shard.indexer import IndexerSettings
from shard.pace import Pace
from shard.rebuild_policy import RebuildSettings
from shard.recall import Probe, RecallCheck

SMALL = IndexerSettings(rebuild=RebuildSettings(calibrate_at=40, rebuild_at=40))


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def quick(closing=None):
    return Pace(1.0, closing or threading.Event())


def vectors(count, dimension=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


@pytest.mark.parametrize("metric", list(Metric))
async def test_a_good_index_finds_all(open_replica, thread, metric):
    """Every probe of a small index finds the whole truth, however many hits it asks for."""
    replica = open_replica(8, metric)
    stored = vectors(300)
    replica.put(dict(enumerate(stored)))
    async with replica.serving(SMALL) as (indexer, searcher):
        check = RecallCheck(replica.storage, indexer, searcher, thread, quick)
        found = await check.measure([Probe(query, k) for query in stored[:10] for k in (1, 10)])
        assert [one.recall for one in found] == [1.0] * 20
        assert {one.index_version for one in found} == {indexer.serving.number}


async def test_what_the_index_lost_is_missed(open_replica, thread):
    """Rows that the index does not hold count against it."""
    replica = open_replica(8, Metric.L2)
    stored = vectors(300)
    async with replica.serving(IndexerSettings(rebuild=RebuildSettings(calibrate_at=10_000))) as (indexer, searcher):
        replica.put(dict(enumerate(stored)))
        await replica.caught_up(indexer)
        indexer.serving.index.remove(np.arange(1, 151, dtype=np.uint64))
        check = RecallCheck(replica.storage, indexer, searcher, thread, quick)
        found = await check.measure([Probe(query, 10) for query in stored[::10]])
        recall = np.mean([one.recall for one in found])
        assert 0.2 < recall < 0.8


async def test_writes_meanwhile_do_not_count_against_the_index(open_replica, thread):
    """What was deleted or rewritten between the scan and the search is no miss, and what came is no hit too many."""
    replica = open_replica(8, Metric.L2)
    stored = vectors(300)
    async with replica.serving(SMALL) as (indexer, searcher):
        replica.put(dict(enumerate(stored)))
        await replica.caught_up(indexer)

        class Writing(type(searcher)):
            """Rewrites the collection before the first search."""

            async def search(self, call):
                if 999 not in replica.truth:
                    replica.delete(list(range(100)))
                    replica.put(dict(enumerate(vectors(100, seed=5), start=100)))
                    replica.put({999: stored[0]})
                    await replica.caught_up(indexer)
                return await searcher.search(call)

        writing = Writing(replica.storage, indexer)
        found = await RecallCheck(replica.storage, indexer, writing, thread, quick).measure(
            [Probe(query, 10) for query in stored[:20]]
        )
        assert {one.recall for one in found if one.recall is not None} == {1.0}


async def test_an_empty_replica_has_no_recall(open_replica, thread):
    """Nothing to find is not a miss."""
    replica = open_replica(8)
    async with replica.serving() as (indexer, searcher):
        check = RecallCheck(replica.storage, indexer, searcher, thread, quick)
        assert [one.recall for one in await check.measure([Probe(vectors(1)[0], 10)])] == [None]
        assert await check.measure([]) == []


async def test_closing_ends_a_measurement(open_replica, thread):
    """The scan ends between two pieces."""
    replica = open_replica(8)
    closing = threading.Event()
    closing.set()
    async with replica.serving() as (indexer, searcher):
        replica.put(dict(enumerate(vectors(10))))
        await replica.caught_up(indexer)
        check = RecallCheck(replica.storage, indexer, searcher, thread, lambda: quick(closing))
        with pytest.raises(Unavailable, match="closing"):
            await check.measure([Probe(vectors(1)[0], 10)])


async def test_filtered_searches_are_compared_within_their_filter(open_replica, thread):
    """The truth is the best of what fulfils the filter now, cut at the score that was asked for."""
    replica = open_replica(8, Metric.L2)
    stored = vectors(400)
    async with replica.serving(SMALL) as (indexer, searcher):
        replica.put(dict(enumerate(stored)), {number: {"even": number % 2 == 0} for number in range(400)})
        await replica.caught_up(indexer)
        check = RecallCheck(replica.storage, indexer, searcher, thread, quick)
        found = await check.measure([
            Probe(stored[1], 10, filter=Equals("even", value=True)),
            Probe(stored[1], 10, filter=Equals("even", value=False), min_score=-1e-6),
            Probe(stored[1], 10, filter=Equals("even", value="no")),
            Probe(stored[1], 10),
        ])  # fmt: skip
        assert [one.recall for one in found] == [1.0, 1.0, None, 1.0]
