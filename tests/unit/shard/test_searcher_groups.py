"""Grouped searches of a replica against the oracle."""

import asyncio

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.ann.vector_index import GraphParameters
from kintsugi.filters.tree import Equals, Exists, Range
from kintsugi.ids import encode
from shard.grouping import group_of
from shard.indexer import IndexerSettings
from shard.reader import Fields
from shard.rebuild_policy import RebuildSettings
from shard.search_batch import BatchSearch
from shard.search_call import Grouping, SearchCall

SMALL = IndexerSettings(rebuild=RebuildSettings(calibrate_at=40, rebuild_at=40), graph=GraphParameters(exact_below=0))
FLEET = IndexerSettings(graph=GraphParameters(exact_below=0), rebuild=RebuildSettings(calibrate_at=1000))
VALUES = st.sampled_from(["a", "b", "c", "1", 1, 1.0, 0, True, False, None, [], ["a"], ["a", "b"], {"x": 1}])
ATTRIBUTES = st.fixed_dictionaries({}, optional={"g": VALUES, "odd": st.booleans()})
ODD = Equals("odd", True)


def vectors(count, dimension, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def groups_of(found, pairs):
    """The hits of the only query, with their groups."""
    return [(doc_id, score, group) for (doc_id, score), group in zip(pairs, found.groups, strict=True)]


def assert_same_groups(found, expected):
    """1 and True are different groups; 1 and 1.0 are not."""
    assert [(hit[0], group_of(hit[2])) for hit in found] == [(hit[0], group_of(hit[2])) for hit in expected]
    assert [hit[1] for hit in found] == pytest.approx([hit[1] for hit in expected], rel=1e-12, abs=1e-12)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attributes=st.lists(ATTRIBUTES, min_size=1, max_size=60),
    k=st.integers(1, 6),
    size=st.integers(1, 4),
    condition=st.sampled_from([None, ODD, Exists("g"), Equals("g", "a")]),
)
def test_grouped_search_equals_the_oracle(open_replica, pairs_of, attributes, k, size, condition):
    """Values of all kinds, with filters, in both modes."""

    async def scenario():
        replica = open_replica(8)
        data = vectors(len(attributes), 8, seed=len(attributes))
        replica.put(dict(enumerate(data)), dict(enumerate(attributes)))
        query = vectors(1, 8, seed=99)
        async with replica.serving(SMALL) as (_, searcher):
            for exact in (False, True):
                call = SearchCall(query, k, exact=exact, oversampling=10.0, filter=condition, group=Grouping("g", size))
                found = await searcher.search(call)
                expected = replica.grouped(query[0], k, "g", size, condition)
                assert_same_groups(groups_of(found, pairs_of(found, 0)), expected)

    asyncio.run(scenario())


@pytest.fixture
def fleet(open_replica):
    """3000 documents: `one` is shared by all of the nearest half, `few` has five values, `rare` lies far away."""
    replica = open_replica(16)
    data, query = vectors(3000, 16), vectors(1, 16, seed=1)[0]
    ranks = np.argsort(np.argsort(-(data @ query) / np.linalg.norm(data, axis=1)))
    attributes = {
        place: {
            "one": "near" if rank < 1500 else f"far {rank % 50}",
            "few": rank % 5,
            "nested": {"pair": f"{rank // 2}"},
            "rank": rank,
        }
        | ({"rare": ["x", "y"] if rank < 2900 else "x"} if rank % 3 else {})
        for place, rank in enumerate(ranks.tolist())
    }
    replica.put(dict(enumerate(data)), attributes)
    replica.query = query
    return replica


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("attribute", "k", "size"),
    [("one", 10, 2), ("few", 10, 3), ("few", 3, 50), ("nested.pair", 10, 2), ("rare", 2, 3), ("none", 5, 1)],
)
async def test_groups_are_found_wherever_they_are(fleet, pairs_of, exact, attribute, k, size):
    """One group may crowd out all others; there may be fewer groups than wanted, or hits far down the ranking, or values that
    only stand in arrays."""
    async with fleet.serving(FLEET) as (_, searcher):
        call = SearchCall(fleet.query[np.newaxis], k, exact=exact, group=Grouping(attribute, size))
        found = groups_of(hits := await searcher.search(call), pairs_of(hits, 0))
        expected = fleet.grouped(fleet.query, k, attribute, size)
        if exact:
            assert_same_groups(found, expected)
        assert len(found) == len(expected)
        assert len({hit[0] for hit in found} & {hit[0] for hit in expected}) >= 0.95 * len(expected)


async def test_groups_obey_filter_and_least_score(fleet, pairs_of):
    """Both leave out hits before groups are made of them, or after."""
    async with fleet.serving(FLEET) as (_, searcher):
        condition = Range("rank", at_least=100.0)
        every = fleet.grouped(fleet.query, 5, "few", 4, condition)
        least = every[11][1]
        for exact in (False, True):
            call = SearchCall(
                fleet.query[np.newaxis],
                5,
                exact=exact,
                filter=condition,
                min_score=least,
                group=Grouping("few", 4),
                fields=Fields(attributes=True),
            )
            found = await searcher.search(call)
            assert_same_groups(groups_of(found, pairs_of(found, 0)), every[:12])
            assert len(found.attributes) == 12


async def test_named_groups_only(fleet, pairs_of):
    """The best hits of the groups asked for, however far away; unknown ones have none; attributes only when asked for."""
    names = ["far 7", "near", "nowhere", True]
    wanted = Grouping("one", 2, tuple(group_of(name) for name in names))
    async with fleet.serving(FLEET) as (_, searcher):
        queries = np.stack([fleet.query, -fleet.query])
        for exact in (False, True):
            found = await searcher.search(SearchCall(queries, 1, exact=exact, group=wanted))
            start = 0
            for place, query in enumerate(queries):
                expected = sorted(
                    (hit for name in names for hit in fleet.grouped(query, 1, "one", 2, Equals("one", name))),
                    key=lambda hit: (-hit[1], hit[0]),
                )
                end = start + found.counts[place]
                mine = zip(pairs_of(found, place), found.groups[start:end], strict=True)
                assert_same_groups([(*pair, group) for pair, group in mine], expected)
                start = end
            assert found.attributes == []


async def test_groups_that_the_index_lacks_are_found(fleet, pairs_of):
    """An index that is behind makes no group smaller."""
    async with fleet.serving(FLEET) as (_, searcher):
        fleet.put({"new": fleet.query}, {"new": {"one": "new"}})
        call = SearchCall(fleet.query[np.newaxis], 1, group=Grouping("one", 3), filter=Equals("one", "new"))
        found = await searcher.search(call)
        assert [hit[0] for hit in pairs_of(found, 0)] == [encode("new")]
        assert found.groups == ["new"]


class Meddling:
    """A source that lets somebody write just before one of its states is read."""

    def __init__(self, storage):
        self._storage = storage
        self.readings = 0
        self.meddle_at, self.meddle = 0, None

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def reading(self):
        self.readings += 1
        if self.readings == self.meddle_at:
            self.meddle()
        return self._storage.reading()


@pytest.mark.parametrize("condition", [None, Exists("g")])
@pytest.mark.parametrize("change", ["delete", "move"])
def test_an_exact_search_makes_up_for_hits_that_change_before_they_are_read(open_replica, change, condition):
    """A document that leaves its group while the search goes on is replaced by the next one of the group."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(60, 8))), {number: {"g": number % 3} for number in range(60)})
    query = vectors(1, 8, seed=99)
    call = SearchCall(query, 2, exact=True, filter=condition, group=Grouping("g", 3))
    source = Meddling(replica.storage)
    batches = BatchSearch(source, replica.model)
    batches.search_exactly(call, 1, lambda: False)
    best = replica.ranking(query[0])[0][0]
    source.meddle_at, source.readings = source.readings, 0
    source.meddle = {"delete": lambda: replica.delete([best]), "move": lambda: replica.patch({best: {"g": "other"}})}[
        change
    ]
    found = batches.search_exactly(call, 1, lambda: False).hits(0, 1)
    expected = replica.grouped(query[0], 2, "g", 3, condition)
    assert {(one, group) for one, group in zip(found.ids, found.groups, strict=True)} == {
        (one, group) for one, _, group in expected
    }
