"""Searching a replica: against the oracle, in batches, under deadlines and overload, with faults."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.ann.vector_index import GraphParameters
from kintsugi.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from kintsugi.ids import encode
from kintsugi.metrics import Metric
from shard.indexer import IndexerSettings
from shard.reader import Fields
from shard.rebuild_policy import RebuildSettings
from shard.search_call import SearchCall
from shard.searcher import Searcher, SearcherSettings

METRICS = list(Metric)
SMALL = IndexerSettings(rebuild=RebuildSettings(calibrate_at=40, rebuild_at=40))


def assert_same_hits(found, expected):
    assert [hit[0] for hit in found] == [hit[0] for hit in expected]
    assert [hit[1] for hit in found] == pytest.approx([hit[1] for hit in expected], rel=1e-12, abs=1e-12)


def vectors(count, dimension, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


WRITES = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "delete"]), st.integers(0, 2**31), st.integers(1, 30)),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=WRITES, k=st.sampled_from([1, 3, 10, 100]))
def test_search_equals_the_oracle_after_any_writes(open_replica, pairs_of, metric, writes, k):
    """Graph search and exact search give the oracle's ids and scores after puts, updates and deletes."""

    async def scenario():
        replica = open_replica(8, metric)
        async with replica.serving(SMALL) as (indexer, searcher):
            for operation, seed, count in writes:
                random = np.random.default_rng(seed)
                ids = [int(i) if i % 2 else f"t{i}" for i in random.choice(60, size=count, replace=False)]
                if operation == "put":
                    replica.put(dict(zip(ids, random.standard_normal((count, 8)), strict=True)))
                else:
                    replica.delete(ids)
                await replica.caught_up(indexer)
                queries = random.standard_normal((2, 8)).astype(np.float32)
                for exact in (False, True):
                    found = await searcher.search(SearchCall(queries, k, exact=exact, oversampling=10.0))
                    assert found.documents == len(replica.truth)
                    for place, query in enumerate(queries):
                        assert_same_hits(pairs_of(found, place), replica.oracle(query, k))

    asyncio.run(scenario())


@pytest.mark.parametrize("metric", METRICS)
async def test_exact_search_equals_the_oracle_among_near_ties(open_replica, pairs_of, metric):
    """Vectors that float32 cannot order, and equal ones, come in the oracle's order, over all of several blocks."""
    # More than the 8 MiB that storage gives at once.
    replica = open_replica(2048, metric)
    base = np.abs(vectors(1, 2048)[0]) + 1000.0
    rows = base + vectors(60, 2048, seed=1) * 1e-3
    replica.put({f"d{place:04}": rows[place % 60] for place in range(1100)})
    async with replica.serving(IndexerSettings(rebuild=RebuildSettings(calibrate_at=10**6))) as (_, searcher):
        queries = np.stack([base, rows[3]]).astype(np.float32)
        found = await searcher.search(SearchCall(queries, 50, exact=True))
        for place, query in enumerate(queries):
            assert_same_hits(pairs_of(found, place), replica.oracle(query, 50))


async def test_equal_scores_are_ordered_by_id(open_replica, pairs_of):
    """Among equal vectors, integers come numerically, then strings bytewise, whatever the order of writing."""
    replica = open_replica(8)
    ids = ["b", 10, "a", 9, 2**40, "aa"]
    replica.put({doc_id: np.ones(8) for doc_id in ids})
    async with replica.serving() as (_, searcher):
        found = await searcher.search(SearchCall(np.ones((1, 8), dtype=np.float32), 4))
        assert [hit[0] for hit in pairs_of(found, 0)] == [encode(i) for i in (9, 10, 2**40, "a")]


async def test_huge_and_tiny_vectors_are_found_exactly(open_replica, pairs_of):
    """Elements whose squares leave float32's range are scored in float64."""
    replica = open_replica(8, Metric.DOT)
    replica.put({place: vector * 1e37 for place, vector in enumerate(vectors(30, 8))})
    replica.put({100 + place: vector * 1e-37 for place, vector in enumerate(vectors(30, 8))})
    query = vectors(1, 8, seed=5) * np.float32(1e37)
    async with replica.serving() as (_, searcher):
        found = await searcher.search(SearchCall(query, 40, exact=True))
        assert_same_hits(pairs_of(found, 0), replica.oracle(query[0], 40))


async def test_a_batch_may_hold_different_k(open_replica, pairs_of):
    """Jobs that wait together are answered each with its own k, fields and number of queries."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(200, 8))))
    async with replica.serving() as (indexer, _):
        searcher = Searcher(replica.storage, indexer)
        calls = [SearchCall(vectors(count, 8, seed=count), k) for k in (1, 5, 20, 5) for count in (1, 3)]
        calls.append(SearchCall(vectors(1, 8), 3, fields=Fields(attributes=True, text=True)))
        waiting = [asyncio.ensure_future(searcher.search(call)) for call in calls]
        await asyncio.sleep(0)
        searcher.start()
        for call, found in zip(calls, await asyncio.gather(*waiting), strict=True):
            assert found.counts == [call.k] * len(call.queries)
            for place, query in enumerate(call.queries):
                assert_same_hits(pairs_of(found, place), replica.oracle(query, call.k))
        assert len(found.attributes) == len(found.texts) == 3
        await asyncio.to_thread(searcher.close)


async def test_late_work_is_not_started(open_replica):
    """Jobs whose deadline has passed when their turn comes fail with DeadlineExceeded, the others are answered."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(50, 8))))
    now = [100.0]
    async with replica.serving() as (indexer, _):
        searcher = Searcher(replica.storage, indexer, clock=lambda: now[0])
        query = vectors(1, 8)
        late = asyncio.ensure_future(searcher.search(SearchCall(query, 3, deadline=101.0)))
        timely = asyncio.ensure_future(searcher.search(SearchCall(query, 3, deadline=103.0)))
        await asyncio.sleep(0)
        now[0] = 102.0
        searcher.start()
        with pytest.raises(DeadlineExceeded):
            await late
        assert (await timely).counts == [3]
        with pytest.raises(DeadlineExceeded):
            await searcher.search(SearchCall(query, 3, exact=True, deadline=101.0))
        await asyncio.to_thread(searcher.close)


async def test_a_full_queue_refuses_at_once(open_replica):
    """Beyond the bound searches fail with a retry delay, and accepted ones are still answered."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(50, 8))))
    async with replica.serving() as (indexer, _):
        searcher = Searcher(replica.storage, indexer, settings=SearcherSettings(max_waiting_queries=4))
        accepted = [asyncio.ensure_future(searcher.search(SearchCall(vectors(2, 8), 3))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted) as refused:
            await searcher.search(SearchCall(vectors(1, 8), 3))
        assert refused.value.retry_delay_s is not None
        searcher.start()
        assert [found.counts for found in await asyncio.gather(*accepted)] == [[3, 3], [3, 3]]
        assert (await searcher.search(SearchCall(vectors(1, 8), 3))).counts == [3]
        await asyncio.to_thread(searcher.close)


async def test_a_bad_job_fails_alone(open_replica):
    """A job that cannot be searched fails with its own error; those batched with it, and later ones, do not."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(50, 8))))
    async with replica.serving() as (indexer, _):
        searcher = Searcher(replica.storage, indexer)
        calls = [SearchCall(vectors(1, width), 3) for width in (8, 5, 8)]
        waiting = [asyncio.ensure_future(searcher.search(call)) for call in calls]
        await asyncio.sleep(0)
        searcher.start()
        first, bad, last = await asyncio.gather(*waiting, return_exceptions=True)
        assert first.counts == last.counts == [3]
        assert isinstance(bad, Exception)
        assert (await searcher.search(calls[0])).counts == [3]
        await asyncio.to_thread(searcher.close)


async def test_a_cancelled_search_leaves_the_others_alone(open_replica):
    """Nobody waits for a cancelled job, and it does no harm."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(50, 8))))
    async with replica.serving() as (indexer, _):
        searcher = Searcher(replica.storage, indexer)
        given_up, kept = (asyncio.ensure_future(searcher.search(SearchCall(vectors(1, 8), 3))) for _ in range(2))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        searcher.start()
        assert (await kept).counts == [3]
        await asyncio.to_thread(searcher.close)


async def test_close_fails_what_waits(open_replica):
    """Waiting searches and later ones fail with Unavailable, none hangs."""
    replica = open_replica(8)
    replica.put({1: np.ones(8)})
    async with replica.serving() as (indexer, _):
        searcher = Searcher(replica.storage, indexer, settings=SearcherSettings(max_batch_queries=1))
        waiting = [asyncio.ensure_future(searcher.search(SearchCall(vectors(1, 8), 1))) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.to_thread(searcher.close)
        assert all(isinstance(one, Unavailable) for one in await asyncio.gather(*waiting, return_exceptions=True))
        for exact in (False, True):
            with pytest.raises(Unavailable):
                await searcher.search(SearchCall(vectors(1, 8), 1, exact=exact))


async def test_search_widens_past_rows_that_are_gone(open_replica, pairs_of):
    """While the index still holds deleted rows, nearer than all others, k hits are found all the same."""
    replica = open_replica(8)
    data = vectors(300, 8)
    replica.put(dict(enumerate(data)))
    async with replica.serving() as (_, searcher):
        nearest = [int.from_bytes(hit[0][1:], "big") for hit in replica.oracle(data[0], 200)]
        # The indexer is not told.
        replica.delete(nearest)
        found = await searcher.search(SearchCall(data[:1], 10))
        assert_same_hits(pairs_of(found, 0), replica.oracle(data[0], 10))


async def test_search_finds_what_the_index_lacks(open_replica, pairs_of):
    """When the index cannot give k hits but storage can, an exact search answers."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(5, 8))))
    async with replica.serving() as (_, searcher):
        replica.put(dict(enumerate(vectors(20, 8, seed=1))))
        query = vectors(1, 8, seed=9)
        found = await searcher.search(SearchCall(query, 10))
        assert_same_hits(pairs_of(found, 0), replica.oracle(query[0], 10))


async def test_an_empty_replica_answers_with_nothing(open_replica):
    """No documents, no hits, no error."""
    replica = open_replica(8)
    async with replica.serving() as (_, searcher):
        for exact in (False, True):
            found = await searcher.search(SearchCall(vectors(2, 8), 5, exact=exact))
            assert (found.counts, found.ids, found.documents) == ([0, 0], [], 0)


async def test_exact_searches_do_not_hold_up_index_searches(open_replica):
    """An index search is answered while an exact search hangs in storage."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(50, 8))))
    async with replica.serving() as (indexer, _):
        entered, release = threading.Event(), threading.Event()

        class Slow:
            def __getattr__(self, name):
                return getattr(replica.storage, name)

            def all_vectors(self, model):
                entered.set()
                release.wait(30)
                return replica.storage.all_vectors(model)

        searcher = Searcher(Slow(), indexer)
        searcher.start()
        exact = asyncio.ensure_future(searcher.search(SearchCall(vectors(1, 8), 3, exact=True)))
        await asyncio.to_thread(entered.wait, 30)
        assert (await searcher.search(SearchCall(vectors(1, 8), 3))).counts == [3]
        assert not exact.done()
        release.set()
        assert (await exact).counts == [3]
        await asyncio.to_thread(searcher.close)


async def test_searches_stay_right_while_writes_and_rebuilds_run(open_replica, pairs_of, eventually):
    """Under concurrent updates, deletes and re-encodings every hit has the exact score of a vector its document had,
    and no search comes back short."""
    replica = open_replica(16)
    data = vectors(300, 16)
    history = {encode(place): [data[place]] for place in range(300)}
    replica.put(dict(enumerate(data)))
    graph = GraphParameters(exact_below=0)
    async with replica.serving(IndexerSettings(slice_records=8, graph=graph, rebuild=SMALL.rebuild)) as (
        indexer,
        searcher,
    ):
        random = np.random.default_rng(3)

        def write() -> None:
            for _ in range(400):
                ids = random.choice(300, size=10, replace=False).tolist()
                fresh = random.standard_normal((10, 16)).astype(np.float32)
                for doc_id, vector in zip(ids, fresh, strict=True):
                    history[encode(doc_id)].append(vector)
                replica.put(dict(zip(ids, fresh, strict=True)))
                indexer.notify()

        writing = asyncio.ensure_future(asyncio.to_thread(write))
        queries = vectors(4, 16, seed=8)
        while not writing.done():
            found = await searcher.search(SearchCall(queries, 10))
            assert found.counts == [10] * 4
            for place, query in enumerate(queries):
                for doc_id, score in pairs_of(found, place):
                    past = np.stack(history[doc_id])
                    cosines = past @ query / (np.linalg.norm(past, axis=1) * np.linalg.norm(query))
                    assert np.abs(cosines - score).min() < 1e-5
        await writing
        await replica.caught_up(indexer)
        assert indexer.failure is None
        assert max(number for number, _, _ in replica.events) > 2


async def test_searches_of_the_index_are_observed(open_replica):
    """The observer is told calls and hits of searches that the index answered, not of exact ones."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(50, 8))))
    observed = []
    async with replica.serving() as (indexer, _):
        searcher = Searcher(replica.storage, indexer, observe=lambda call, hits: observed.append((call, hits)))
        searcher.start()
        call = SearchCall(vectors(2, 8), 3)
        found = await searcher.search(call)
        await searcher.search(SearchCall(vectors(1, 8), 3, exact=True))
        await asyncio.to_thread(searcher.close)
    assert observed == [(call, found)]
    assert found.index_version == indexer.serving.number
