"""Exact neighbours, and recall against them."""

import numpy as np
import pytest

from kintsugi.metrics import Metric, scores
from kintsugi.tuning.truth import best, exact_top_k


def data(count, seed, dimension=24):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


@pytest.mark.parametrize("metric", list(Metric))
def test_exact_answers_are_those_of_scoring_everything(metric):
    """The yardstick of every recall."""
    vectors = data(500, 1) * np.linspace(0.5, 2, 500, dtype=np.float32)[:, np.newaxis]
    queries = data(7, 2)
    truth = exact_top_k(metric, vectors, queries, 10)
    for query, found, values in zip(queries, truth.rows, truth.scores, strict=True):
        exact = scores(metric, query, vectors)
        assert found.tolist() == np.argsort(-exact)[:10].tolist()
        assert values.tolist() == np.sort(exact)[::-1][:10].tolist()


def test_recall_counts_what_ties_with_the_last_true_neighbour():
    """Copies of one document: whichever is found is as good as the one that brute force happened to take."""
    vectors = np.repeat(data(5, 3), 10, axis=0)
    query = vectors[:1]
    truth = exact_top_k(Metric.COSINE, vectors, query, 4)
    assert truth.rows.tolist() == [[0, 1, 2, 3]]
    others = best(scores(Metric.COSINE, query[0], vectors[6:40]), 4)
    assert truth.recalls([others]).tolist() == [1.0]
    assert truth.recalls([others[:1]]).tolist() == [0.25]
    far = best(scores(Metric.COSINE, query[0], vectors[10:40]), 4)
    assert truth.recalls([far]).tolist() == [0.0]


def test_answers_are_cut_to_the_best():
    """As a shard server cuts its candidates."""
    vectors, query = data(30, 4), data(1, 5)[0]
    values = scores(Metric.DOT, query, vectors)
    assert sorted(best(values, 3), reverse=True) == np.sort(values)[::-1][:3].tolist()
    assert best(values, 50).tolist() == values.tolist()
