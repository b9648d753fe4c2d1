"""The later stages of a cascade, against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.ann import narrowing
from kintsugi.ann.fitting import fit
from kintsugi.ann.narrowing import by_planes, by_scan_codes
from kintsugi.ann.spec import parse_name
from kintsugi.metrics import Metric, scores
from tests.unit.ann.measuring import bent, recall_at_10, truth

DIMENSION = 70
VECTORS = bent(400, DIMENSION, seed=1)
QUERIES = bent(7, DIMENSION, seed=2)


def places(rows):
    return rows.astype(np.int64)


def drawn(seed, most=120):
    random = np.random.default_rng(seed)
    return [random.permutation(400)[: random.integers(0, most)].astype(np.uint64) for _ in QUERIES]


def scan_scores(encoding, query, rows):
    codes = encoding.scan.encode(VECTORS)[places(rows)].astype(np.float64)
    asked = encoding.scan.encode_queries(QUERIES[query : query + 1])[0].astype(np.float64)
    return scores(encoding.metric, asked, codes)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    metric=st.sampled_from(list(Metric)),
    name=st.sampled_from(["i8+pca-12", "f32+prefix-9"]),
)
def test_narrowing_by_all_codes_to_as_many_orders_them_exactly(seed, metric, name):
    """A funnel whose shortlists hold everything equals an exact comparison of the codes."""
    encoding = fit(parse_name(name), metric, DIMENSION, VECTORS, 400)
    scan = encoding.scan.encode(VECTORS)
    candidates = drawn(seed)
    found = by_scan_codes(encoding, QUERIES, candidates, 400, lambda rows: scan[places(rows)])
    for query, (rows, given_rows) in enumerate(zip(found, candidates, strict=True)):
        assert sorted(rows.tolist()) == sorted(given_rows.tolist())
        if len(rows):
            values = scan_scores(encoding, query, rows)
            assert values == pytest.approx(np.sort(values)[::-1], rel=1e-5, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), metric=st.sampled_from(list(Metric)), kept=st.integers(1, 30))
def test_narrowing_without_a_prefix_keeps_the_best_by_whole_codes(seed, metric, kept):
    """As numpy ranks them."""
    encoding = fit(parse_name("i8+pca-12"), metric, DIMENSION, VECTORS, 400)
    scan = encoding.scan.encode(VECTORS)
    candidates = drawn(seed)
    found = by_scan_codes(encoding, QUERIES, candidates, kept, lambda rows: scan[places(rows)])
    for query, (rows, given_rows) in enumerate(zip(found, candidates, strict=True)):
        assert len(rows) == min(kept, len(given_rows))
        if len(rows):
            best = np.sort(scan_scores(encoding, query, given_rows))[::-1][: len(rows)]
            assert scan_scores(encoding, query, rows) == pytest.approx(best, rel=1e-5, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), bits=st.integers(2, 4), kept=st.integers(1, 150))
def test_narrowing_by_planes_keeps_the_best_by_their_symmetric_distance(seed, bits, kept):
    """In its order, whatever the blocks that rows are gathered in."""
    encoding = fit(parse_name(f"recurrent-{bits}"), Metric.COSINE, DIMENSION, VECTORS, 400)
    graph, extra = encoding.encode(VECTORS), encoding.extra_codes(VECTORS)
    candidates = drawn(seed)
    found = by_planes(
        encoding, QUERIES, candidates, kept, lambda rows: encoding.planes(graph[places(rows)], extra[places(rows)])
    )
    asked, planes = encoding.planes_of_queries(QUERIES), encoding.planes(graph, extra)
    for query, (rows, given_rows) in enumerate(zip(found, candidates, strict=True)):
        nearness = encoding.nearness(asked, query, planes, 0, 400)
        best = np.sort(nearness[places(given_rows)])[::-1][:kept]
        assert nearness[places(rows)].tolist() == best.tolist()


def test_queries_with_many_candidates_are_gathered_for_in_blocks():
    """Every query gets its own, and no call gathers much more than a block."""
    encoding = fit(parse_name("binary"), Metric.COSINE, DIMENSION, VECTORS, 400)
    scan, gathered = encoding.scan.encode(VECTORS), []

    def gather(rows):
        gathered.append(len(rows))
        return scan[places(rows)]

    queries = np.repeat(QUERIES, 100, axis=0)
    candidates = [np.arange(place % 200, 400, dtype=np.uint64) for place in range(len(queries))]
    found = by_scan_codes(encoding, queries, candidates, 1, gather)
    assert max(gathered) * DIMENSION <= narrowing._BLOCK_BYTES
    assert sum(gathered) == sum(map(len, candidates))
    assert len(gathered) > 1
    for place, rows in enumerate(found):
        assert len(rows) == 1
        assert int(rows[0]) >= place % 200


def test_a_funnel_that_halves_loses_next_to_nothing():
    """Of the hits among the candidates, even with vectors that were not made for prefixes."""
    vectors, queries = bent(3000, 96, seed=1), bent(40, 96, seed=2)
    encoding = fit(parse_name("i8+prefix-24"), Metric.COSINE, 96, vectors, 3000)
    scan = encoding.scan.encode(vectors)
    every = [np.arange(3000, dtype=np.uint64)] * len(queries)
    found = by_scan_codes(encoding, queries, every, 50, lambda rows: scan[places(rows)])
    assert recall_at_10(truth(Metric.COSINE, vectors, queries), found) >= 0.95
