"""The choice between graph and scan: how it begins, how it goes on, what it learns."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.limits import MAX_CANDIDATES
from shard.filter_plan import Costs, Filtered, Step, Way, first_step, next_step

HALF = Filtered(matches=50_000, vectors=100_000, queries=1, wanted=30, breadth=128, dimension=384, has_codes=True)


def test_few_matches_are_scanned_and_many_are_left_to_the_graph():
    """With the measured costs, 384 dimensions and 100k vectors, a tenth is scanned and half is not."""
    assert first_step(replace(HALF, matches=10_000), Costs()) == Step(Way.SCAN)
    assert first_step(HALF, Costs()).way is Way.GRAPH


def test_the_graph_is_asked_for_no_less_than_it_looks_at():
    """Candidates that cost nothing are taken."""
    assert first_step(replace(HALF, matches=100_000), Costs()).count == HALF.breadth


def test_the_graph_is_asked_for_the_share_that_the_filter_leaves():
    """A fifth of the vectors takes more than five times the candidates."""
    step = first_step(replace(HALF, matches=20_000), Costs())
    assert step.way is Way.GRAPH
    assert 5 * HALF.wanted < step.count < 8 * HALF.wanted


def test_stored_vectors_cost_more_than_codes():
    """Without codes the graph is worth its while earlier."""
    few = replace(HALF, matches=12_000)
    assert first_step(few, Costs()).way is Way.SCAN
    assert first_step(replace(few, has_codes=False), Costs()).way is Way.GRAPH


def test_a_filter_at_odds_with_the_query_is_scanned():
    """When next to nothing of what the graph gives fulfils the filter, it is not asked again."""
    assert next_step(HALF, Costs(), 128, [128], [1]) == Step(Way.SCAN)


def test_a_near_miss_is_asked_again():
    """When asking for more is cheaper than a scan, the graph is."""
    large = replace(HALF, matches=5_000_000, vectors=10_000_000)
    step = next_step(large, Costs(), 128, [128, 128], [10, 12])
    assert step.way is Way.GRAPH
    assert 256 <= step.count <= 512


def test_an_exhausted_graph_is_not_asked_again():
    """A graph that gives less than it was asked for has no more."""
    assert next_step(HALF, Costs(), 128, [100], [15]) == Step(Way.SCAN)


@pytest.mark.parametrize("slow", ["graph", "scan"])
def test_costs_are_learned(slow):
    """What turns out slow is chosen less: the same filter is planned the other way."""
    between = replace(HALF, matches=14_000)
    costs = Costs()
    for _ in range(30):
        if slow == "graph":
            costs.learn_graph(between, 200, 5 * Costs().graph_s(between, 200))
        else:
            costs.learn_scan(between, 5 * Costs().scan_s(between))
    assert first_step(between, costs).way is (Way.SCAN if slow == "graph" else Way.GRAPH)


def test_one_stalled_search_does_not_decide():
    """A single measurement a thousand times too long leaves the estimate within a factor of three."""
    costs = Costs()
    costs.learn_scan(HALF, 1000 * costs.scan_s(HALF))
    assert 1.0 < costs.scan < 3.0


SITUATIONS = st.builds(
    Filtered,
    matches=st.integers(1, 10**7),
    vectors=st.integers(0, 10**7),
    queries=st.integers(1, 256),
    wanted=st.integers(1, MAX_CANDIDATES),
    breadth=st.sampled_from([64, 128]),
    dimension=st.integers(1, 8192),
    has_codes=st.booleans(),
)


@given(searched=SITUATIONS, fraction=st.floats(0.0, 1.0))
def test_it_always_comes_to_an_end(searched, fraction):
    """However little is seen, the graph is asked for more each time, within the bound, and at last not at all."""
    step, asked = first_step(searched, Costs()), 0
    while step.way is Way.GRAPH:
        assert asked < step.count <= MAX_CANDIDATES
        asked = step.count
        step = next_step(searched, Costs(), asked, [asked], [int(asked * fraction)])
