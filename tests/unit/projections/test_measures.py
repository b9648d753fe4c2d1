"""Measures of retrieval, against values worked out by hand and against numpy."""

import numpy as np
import pytest

from kintsugi.metrics import Metric, scores
from kintsugi.projections.measures import best_places, interval, ndcg, recall, score_matrix, top


@pytest.mark.parametrize("metric", list(Metric))
def test_score_matrix_agrees_with_the_metric(metric):
    """Scores of all pairs are those of the shared metrics, in float32."""
    random = np.random.default_rng(0)
    queries, documents = random.standard_normal((4, 8)), random.standard_normal((9, 8))
    if metric is Metric.COSINE:
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    oracle = np.array([scores(metric, query, documents) for query in queries])
    assert np.allclose(score_matrix(metric, queries, documents), oracle, atol=1e-4)


def test_best_places_are_in_order_and_ties_go_by_place():
    """The highest first; of equal ones the first column first."""
    values = np.array([[0.1, 0.5, 0.5, 0.9], [1.0, 1.0, 1.0, 1.0]])
    assert best_places(values, 3).tolist() == [[3, 1, 2], [0, 1, 2]]
    assert best_places(values, 4).tolist() == [[3, 1, 2, 0], [0, 1, 2, 3]]


def test_top_leaves_the_query_itself_out():
    """A document asked for its neighbours does not find itself, unless nothing is to be skipped."""
    documents = np.eye(5, dtype=np.float32) + 0.1
    own = np.array([2, -1])
    found = top(Metric.DOT, documents[[2, 3]], documents, 5, own)
    assert 2 not in found[0]
    assert 3 in found[1]
    assert found.shape == (2, 4)


def test_recall_and_ndcg_of_worked_examples():
    """Half of the neighbours found; a relevant document second of two wanted."""
    assert recall(np.array([[1, 2, 3, 4]]), np.array([[3, 4, 5, 6]])).tolist() == [0.5]
    ideal = 1 / np.log2(2) + 1 / np.log2(3)
    found = np.array([[7, 1, 9], [0, 1, 2]])
    assert np.allclose(ndcg(found, [frozenset({1, 5}), frozenset({0, 1})]), [(1 / np.log2(3)) / ideal, 1.0])


def test_interval_holds_the_mean_and_narrows_with_more_values():
    """A bootstrap interval surrounds the mean, covers it about 95 times in 100, and is refused for nothing."""
    random = np.random.default_rng(1)
    few, many = (interval(random.standard_normal(count) + 3.0) for count in (50, 5000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
    covered = [
        one.low <= 0.0 <= one.high
        for one in (interval(random.standard_normal(200), seed=trial, draws=500) for trial in range(200))
    ]
    assert 0.88 < np.mean(covered) < 0.99
    with pytest.raises(ValueError, match="at least 1"):
        interval(np.empty(0))
