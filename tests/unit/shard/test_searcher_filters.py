"""Filtered searches of a replica against the oracle: filters, minimal scores, writes in between."""

import asyncio

import numpy as np
import pytest
from harness.filters import FILTERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.ann.vector_index import GraphParameters
from kintsugi.filters.tree import AllOf, Equals, Exists, Not, Range
from kintsugi.metrics import Metric
from shard.indexer import IndexerSettings
from shard.reader import Fields
from shard.rebuild_policy import RebuildSettings
from shard.search_call import SearchCall

SMALL = IndexerSettings(rebuild=RebuildSettings(calibrate_at=40, rebuild_at=40), graph=GraphParameters(exact_below=0))
SCALARS = st.sampled_from([None, True, False, 0, 1, -1.5, 0.1, "a", "b", "", "red", "1", ["a", "red"], [], {}])
ATTRIBUTES = st.dictionaries(st.sampled_from(["a", "b", "a.b", "tags"]), SCALARS, max_size=3)


def vectors(count, dimension, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def assert_same_hits(found, expected):
    assert [hit[0] for hit in found] == [hit[0] for hit in expected]
    assert [hit[1] for hit in found] == pytest.approx([hit[1] for hit in expected], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("metric", list(Metric))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(st.lists(ATTRIBUTES, min_size=1, max_size=20), min_size=1, max_size=4),
    filters=st.lists(FILTERS, min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    k=st.sampled_from([1, 3, 10]),
)
def test_filtered_search_equals_the_oracle_after_any_writes(open_replica, pairs_of, metric, rounds, filters, seed, k):
    """Any filter, after puts, changes of attributes only, and deletes, in both modes."""

    async def scenario():
        replica = open_replica(8, metric)
        random = np.random.default_rng(seed)
        async with replica.serving(SMALL) as (indexer, searcher):
            for attributes in rounds:
                ids = [int(one) for one in random.choice(60, size=len(attributes), replace=False)]
                replica.put(dict(zip(ids, random.standard_normal((len(ids), 8)), strict=True)))
                replica.patch(dict(zip(ids, attributes, strict=True)))
                replica.delete([int(one) for one in random.choice(60, size=3)])
                await replica.caught_up(indexer)
                queries = random.standard_normal((2, 8)).astype(np.float32)
                for condition in filters:
                    for exact in (False, True):
                        call = SearchCall(queries, k, exact=exact, oversampling=10.0, filter=condition)
                        found = await searcher.search(call)
                        for place, query in enumerate(queries):
                            assert_same_hits(pairs_of(found, place), replica.oracle(query, k, condition))

    asyncio.run(scenario())


@pytest.fixture
def fleet(open_replica):
    """3000 documents, among which `rank` says how near each is to the first query."""
    replica = open_replica(16)
    data, query = vectors(3000, 16), vectors(1, 16, seed=1)[0]
    nearness = data @ query / np.linalg.norm(data, axis=1)
    ranks = np.argsort(np.argsort(-nearness))
    attributes = {
        place: {"rank": int(ranks[place]), "odd": bool(place % 2), "kind": "abc"[place % 3]} for place in range(3000)
    }
    replica.put(dict(enumerate(data)), attributes)
    replica.query = query
    return replica


FLEET = IndexerSettings(graph=GraphParameters(exact_below=0), rebuild=RebuildSettings(calibrate_at=1000))
BANDS = [
    Range("rank", below=0.0),
    Equals("rank", 7.0),
    Range("rank", below=30.0),
    Range("rank", at_least=2970.0),
    Range("rank", at_least=1500.0),
    Range("rank", below=1500.0),
    Equals("odd", True),
    AllOf((Equals("kind", "a"), Not(Range("rank", below=1000.0)))),
    Exists("rank"),
]


async def test_k_come_back_whenever_k_match(fleet, pairs_of):
    """Filters that go with the query, against it, or neither: all the hits there are, nearly all of them the right ones."""
    async with fleet.serving(FLEET) as (_, searcher):
        for condition in BANDS:
            expected = fleet.oracle(fleet.query, 10, condition)
            found = await searcher.search(SearchCall(fleet.query[np.newaxis], 10, filter=condition))
            assert found.counts == [len(expected)]
            right = {hit[0] for hit in expected} & {hit[0] for hit in pairs_of(found, 0)}
            assert len(right) >= 0.9 * len(expected)
            exact = await searcher.search(SearchCall(fleet.query[np.newaxis], 10, filter=condition, exact=True))
            assert_same_hits(pairs_of(exact, 0), expected)


async def test_hits_below_the_least_score_are_dropped(fleet, pairs_of):
    """And are not looked for elsewhere; equal ones are kept."""
    async with fleet.serving(FLEET) as (_, searcher):
        best = fleet.oracle(fleet.query, 20)
        for exact in (False, True):
            for least, count in ((best[4][1], 5), (2.0, 0), (-2.0, 20)):
                call = SearchCall(fleet.query[np.newaxis], 20, min_score=least, exact=exact)
                assert_same_hits(pairs_of(await searcher.search(call), 0), best[:count])
        few = SearchCall(fleet.query[np.newaxis], 20, min_score=best[4][1], filter=Range("rank", above=1.0))
        assert_same_hits(pairs_of(await searcher.search(few), 0), best[2:5])


async def test_what_the_index_lacks_is_found_by_filter(fleet, pairs_of):
    """Documents that the index does not have yet are found when they alone fulfil the filter."""
    async with fleet.serving(FLEET) as (_, searcher):
        fleet.put({"new": fleet.query}, {"new": {"kind": "new"}})
        condition = Equals("kind", "new")
        found = await searcher.search(SearchCall(fleet.query[np.newaxis], 10, filter=condition))
        assert_same_hits(pairs_of(found, 0), fleet.oracle(fleet.query, 10, condition))


async def test_hits_fulfil_their_filter_while_attributes_change(fleet):
    """The attributes that come with a hit fulfil the filter, however fast they change; and no search comes back short."""
    stop = asyncio.Event()

    def change(seed):
        random = np.random.default_rng(seed)
        ids = [int(one) for one in random.choice(3000, size=50, replace=False)]
        fleet.patch({one: fleet.attributes[one] | {"odd": bool(random.random() < 0.5)} for one in ids})

    async def write():
        seed = 0
        while not stop.is_set():
            await asyncio.to_thread(change, seed := seed + 1)

    async with fleet.serving(FLEET) as (_, searcher):
        writing = asyncio.create_task(write())
        condition = Equals("odd", True)
        for exact in (False, True) * 20:
            call = SearchCall(
                fleet.query[np.newaxis], 50, exact=exact, filter=condition, fields=Fields(attributes=True)
            )
            found = await searcher.search(call)
            assert found.counts == [50]
            assert all('"odd": true' in text for text in found.attributes)
        stop.set()
        await writing
