"""Candidates among the rows that fulfil a filter: from the graph, from scans, from stored vectors."""

import numpy as np
import pytest
from pyroaring import BitMap64

from kintsugi.ann.encoded_index import EncodedIndex
from kintsugi.ann.encoding import f32
from kintsugi.ann.fitting import fit
from kintsugi.ann.scan_codes import ScanCodes
from kintsugi.ann.spec import EncodingKind, EncodingSpec
from kintsugi.ann.vector_index import GraphParameters, VectorIndex
from kintsugi.metrics import Metric, scores
from shard.attributes.lookup import Matches
from shard.candidates import IndexCandidates
from shard.checkpoint import IndexedModel, IndexVersion
from shard.filter_plan import Costs
from shard.rescore import rescore, rescore_in_order
from shard.search_call import SearchCall
from shard.search_times import StageClock

COUNT, DIMENSION, K = 4000, 16, 10
MODEL = IndexedModel(1, DIMENSION, Metric.COSINE)
GRAPH_IS_FREE = {"graph": 1e-6, "scan": 1e6}
SCAN_IS_FREE = {"graph": 1e6, "scan": 1e-6}


class Documents:
    """A snapshot of vectors only; row n has the vector n."""

    def __init__(self, vectors):
        self.stored = vectors

    def vectors(self, model, rows):
        return np.ones(len(rows), dtype=np.bool_), self.stored[rows.astype(np.int64)]


class World:
    """Clustered vectors, indexed."""

    def __init__(self, folder, kind):
        random = np.random.default_rng(5)
        basis = random.standard_normal((8, DIMENSION))
        self.vectors = (random.standard_normal((COUNT, 8)) @ basis).astype(np.float32)
        self.queries = (random.standard_normal((20, 8)) @ basis).astype(np.float32)
        self.documents = Documents(self.vectors)
        self.ranks = np.stack([np.argsort(-scores(Metric.COSINE, query, self.vectors)) for query in self.queries])
        encoding = f32(Metric.COSINE, DIMENSION)
        scan = None
        if kind is not EncodingKind.F32:
            encoding = fit(EncodingSpec(kind), Metric.COSINE, DIMENSION, self.vectors, COUNT)
            scan = ScanCodes.create(folder / "codes", encoding.scan, 0)
        self.index = EncodedIndex(VectorIndex(encoding, GraphParameters(exact_below=0)), scan)
        self.index.add(np.arange(COUNT, dtype=np.uint64), self.vectors)
        self.costs = Costs()

    def find(self, queries, rows, oversampling=None, **costs):
        """The best k of the candidates among the rows, for each query."""
        matches = Matches(BitMap64(np.sort(rows).tolist()), 1)
        self.costs = Costs(**costs)
        finder = self.finder(oversampling=oversampling)
        found = finder.find(queries, K, matches)
        assert all(np.isin(one, rows).all() and len(np.unique(one)) == len(one) for one in found)
        scoring = rescore_in_order if finder.are_in_order else rescore
        return scoring(self.documents, 1, Metric.COSINE, queries, found, K)

    def finder(self, **options):
        """What finds candidates for a search with these options."""
        call = SearchCall(self.queries, K, **options)
        return IndexCandidates(self.documents, MODEL, IndexVersion(1, self.index), call, self.costs, StageClock())

    def recall(self, place, rows, found):
        """The part of the k best of the rows that was found."""
        ranks = self.ranks[place]
        best = set(ranks[np.isin(ranks, rows)][:K].tolist())
        return len(best & set(found.rows.tolist())) / len(best)


@pytest.fixture(scope="module", params=[EncodingKind.I8, EncodingKind.F32])
def world(request, tmp_path_factory):
    return World(tmp_path_factory.mktemp("index"), request.param)


def chosen(world, place, size, correlation):
    """Rows of a filter: anywhere, among the half nearest to the query, or among the half farthest from it."""
    random = np.random.default_rng(place)
    near = {"none": world.ranks[place], "near": world.ranks[place][: COUNT // 2]}
    return random.choice(near.get(correlation, world.ranks[place][COUNT // 2 :]), size, replace=False)


@pytest.mark.parametrize("correlation", ["none", "near", "far"])
@pytest.mark.parametrize("size", [1, 9, 40, 400, 2000])
@pytest.mark.parametrize("costs", [GRAPH_IS_FREE, SCAN_IS_FREE], ids=["graph", "scan"])
def test_nearly_all_of_the_best_matches_are_found(world, correlation, size, costs):
    """Ten whenever ten match, whatever is planned, however filter and query are correlated."""
    recalls = []
    for place in range(len(world.queries)):
        rows = chosen(world, place, size, correlation)
        (found,) = world.find(world.queries[place : place + 1], rows, **costs)
        assert len(found.rows) >= min(K, size)
        recalls.append(world.recall(place, rows, found))
    assert np.mean(recalls) >= 0.98


def test_a_batch_shares_a_filter(world):
    """Queries near to the rows are answered by the graph, those far from them along with them by a scan."""
    rows = world.ranks[0][: COUNT // 4]
    found = world.find(world.queries, rows, graph=1.0, scan=20.0)
    recalls = [world.recall(place, rows, one) for place, one in enumerate(found)]
    assert all(len(one.rows) == K for one in found)
    assert np.mean(recalls) >= 0.98


def test_candidates_per_hit_may_be_named(world):
    """With a hundred per hit, as many are compared exactly."""
    rows = chosen(world, 0, 2000, "far")
    (found,) = world.find(world.queries[:1], rows, 100.0, **SCAN_IS_FREE)
    assert world.recall(0, rows, found) == 1.0


def test_one_candidate_per_hit_still_gives_all_hits(world):
    """Nobody is left short of hits, who would have to be searched for exactly."""
    for place in range(len(world.queries)):
        for size in (400, 1000, 2000, 3500):
            (found,) = world.find(
                world.queries[place : place + 1], chosen(world, place, size, "none"), 1.0, **GRAPH_IS_FREE
            )
            assert len(found.rows) >= K


def test_nothing_matches(world):
    """No candidates, no error."""
    found = world.find(world.queries[:2], np.empty(0, dtype=np.uint64))
    assert [len(one.rows) for one in found] == [0, 0]


def test_searches_teach_what_they_cost(world):
    """The estimate of whatever was done moves, the other stays."""
    rows = chosen(world, 0, 2000, "none")
    world.find(world.queries[:1], rows, **SCAN_IS_FREE)
    assert world.costs.scan > SCAN_IS_FREE["scan"]
    assert world.costs.graph == SCAN_IS_FREE["graph"]


def test_how_many_candidates_the_graph_looks_at_may_be_named(world):
    """As many come back; a broad search finds what a narrow one misses, and one that names none is as broad as ever."""
    found = {ef: world.finder(ef_search=ef).find(world.queries, K, None) for ef in (40, 500)}
    assert {ef: {len(rows) for rows in of_ef} for ef, of_ef in found.items()} == {40: {40}, 500: {500}}
    usual = world.finder().find(world.queries, K, None)
    assert {len(rows) for rows in usual} == {world.index.breadth.value}


def test_a_narrow_search_of_the_graph_leaves_no_other_narrow(world):
    """How broad a search is, is its own: the one behind it finds as much as before it."""
    before = world.index.graph.search(world.queries, K)
    narrow = world.index.graph.search(world.queries, K, 10)
    after = world.index.graph.search(world.queries, K)
    assert [rows.tolist() for rows in after] == [rows.tolist() for rows in before]
    truth = world.ranks[:, :K]
    hits = [[len(set(rows.tolist()) & set(best.tolist())) for rows, best in zip(found, truth, strict=True)]
            for found in (narrow, before)]  # fmt: skip
    assert sum(hits[0]) < sum(hits[1])
