"""Exact scores of candidates: all of them, or as many as their order calls for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.metrics import Metric, scores
from shard.rescore import rescore, rescore_in_order, rows_of


class Stored:
    """Vectors by row; counts how many are read."""

    def __init__(self, vectors, absent=()):
        self.matrix = vectors
        self.absent = set(absent)
        self.read = 0

    def vectors(self, model, rows):
        self.read += len(rows)
        present = np.array([row not in self.absent for row in rows.tolist()], dtype=np.bool_)
        return present, self.matrix[rows.astype(np.int64)]


def world(count, absent=(), seed=0):
    random = np.random.default_rng(seed)
    return Stored(random.standard_normal((count, 8)).astype(np.float32), absent), random


def best_of(stored, query, rows, k):
    there = [row for row in rows.tolist() if row not in stored.absent]
    values = scores(Metric.DOT, query, stored.matrix[there])
    return {row for row, value in zip(there, values, strict=True) if value >= np.sort(values)[-k:][0]}


@given(seed=st.integers(0, 2**31), count=st.integers(1, 5), k=st.sampled_from([1, 3, 10]))
def test_the_best_candidates_of_each_query_are_kept(seed, count, k):
    """Queries share candidates, some of which are gone; the scores are those of the stored vectors."""
    stored, random = world(60, absent={3, 4, 5}, seed=seed)
    queries = random.standard_normal((count, 8)).astype(np.float32)
    candidates = [random.choice(60, size=random.integers(4, 50), replace=False).astype(np.uint64) for _ in queries]
    found = rescore(stored, 1, Metric.DOT, queries, candidates, k)
    for query, rows, one in zip(queries, candidates, found, strict=True):
        assert set(one.rows.tolist()) == best_of(stored, query, rows, k)
        assert one.scores == pytest.approx(scores(Metric.DOT, query, stored.matrix[one.rows.astype(np.int64)]))
    assert rows_of(found).tolist() == [row for one in found for row in one.rows.tolist()]
    assert all(one.scores.tolist() == sorted(one.scores.tolist(), reverse=True) for one in found)


def in_true_order(stored, query):
    return np.argsort(-scores(Metric.DOT, query, stored.matrix), kind="stable").astype(np.uint64)


def test_of_candidates_in_the_right_order_few_are_read():
    """20 of 1000 are enough for ten hits."""
    stored, random = world(1000)
    query = random.standard_normal(8).astype(np.float32)
    ordered = in_true_order(stored, query)
    (found,) = rescore_in_order(stored, 1, Metric.DOT, query[np.newaxis], [ordered], 10)
    assert sorted(found.rows.tolist()) == sorted(ordered[:10].tolist())
    assert stored.read == 20


@pytest.mark.parametrize("spread", [10, 60, 300])
def test_of_candidates_in_a_vague_order_as_many_are_read_as_it_takes(spread):
    """However vague the order, the best are nearly all found, without reading all."""
    stored, random = world(2000)
    missed = 0
    for _ in range(20):
        query = random.standard_normal(8).astype(np.float32)
        exact = in_true_order(stored, query)
        vague = exact[np.argsort(np.arange(2000) + random.uniform(0, spread, 2000))]
        stored.read = 0
        (found,) = rescore_in_order(stored, 1, Metric.DOT, query[np.newaxis], [vague], 10)
        missed += len(set(exact[:10].tolist()) - set(found.rows.tolist()))
        assert stored.read <= 40 + 6 * spread
    assert missed <= 6


def test_queries_stop_each_for_itself():
    """One query's vague order does not make another's candidates be read."""
    stored, random = world(1000)
    queries = random.standard_normal((2, 8)).astype(np.float32)
    ordered = [in_true_order(stored, query) for query in queries]
    ordered[1] = ordered[1][::-1]
    found = rescore_in_order(stored, 1, Metric.DOT, queries, ordered, 10)
    for query, one in zip(queries, found, strict=True):
        assert sorted(one.rows.tolist()) == sorted(in_true_order(stored, query)[:10].tolist())
    assert stored.read <= 1020


def test_nothing_is_found_among_nothing():
    """Queries without candidates, and candidates that are all gone, have no hits."""
    stored, _ = world(10, absent=range(10))
    queries = np.ones((2, 8), dtype=np.float32)
    nothing = np.empty(0, dtype=np.uint64)
    for function in (rescore, rescore_in_order):
        assert [len(one.rows) for one in function(stored, 1, Metric.DOT, queries, [nothing, nothing], 3)] == [0, 0]
        gone = function(stored, 1, Metric.DOT, queries[:1], [np.arange(10, dtype=np.uint64)], 3)
        assert [len(one.rows) for one in gone] == [0]
