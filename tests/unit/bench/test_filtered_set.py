"""Documents whose filters have the selectivity and correlation that the table says."""

import numpy as np
import pytest

from bench.filtered_set import CELLS, Cell, Correlation, FilteredSet
from kintsugi.filters.dicts import from_dict
from kintsugi.filters.matching import matches

COUNT = 2000


@pytest.fixture(scope="module")
def made():
    random = np.random.default_rng(5)
    vectors = random.standard_normal((COUNT, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return FilteredSet(vectors, vectors[:3] + 0.01, relatives=2, seed=1)


def test_queries_stay_close_to_their_anchors(made):
    """A filter made for an anchor is correlated with its relatives too."""
    assert made.queries.shape == (6, 16)
    assert np.allclose(np.linalg.norm(made.queries, axis=1), 1, atol=1e-5)
    cosines = np.sum(made.queries[::2] * made.queries[1::2], axis=1)
    assert (cosines > 0.97).all()


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_filter_has_its_selectivity_and_matches_what_it_is_said_to(made, cell):
    """The filter that is sent, by the semantics that everything else is held to, and the mask behind the truth."""
    wanted = max(1, round(cell.selectivity * COUNT))
    for query in (0, 5):
        mask = made.matches(cell, query)
        assert np.count_nonzero(mask) == wanted
        tree = from_dict(made.filter(cell, query))
        for document in range(0, COUNT, 7):
            assert matches(tree, made.attributes(document)) == mask[document]


def similarity_places(made, query):
    """Of each document, 0 for the nearest and 1 for the farthest."""
    return np.argsort(np.argsort(-(made.vectors @ made.queries[query]))) / COUNT


@pytest.mark.parametrize(
    ("correlation", "low", "high"),
    [
        (Correlation.UNCORRELATED, 0.4, 0.6),
        (Correlation.STRING, 0.4, 0.6),
        (Correlation.POSITIVE, 0.0, 0.15),
        (Correlation.NEGATIVE, 0.85, 1.0),
    ],
)
def test_matches_stand_where_their_correlation_says(made, correlation, low, high):
    """By their rank of similarity to the query, on average over a tenth of all documents."""
    for query in range(6):
        places = similarity_places(made, query)[made.matches(Cell(0.1, correlation), query)]
        assert low < places.mean() < high


def test_a_correlated_filter_is_no_sharp_edge(made):
    """Some of the nearest do not match, or the filter would change nothing."""
    cell = Cell(0.01, Correlation.POSITIVE)
    nearest = similarity_places(made, 0) < 0.01
    assert 0 < np.count_nonzero(nearest & ~made.matches(cell, 0)) < 15


def test_the_truth_is_the_best_of_the_matches(made):
    """All of them when there are fewer than k."""
    many, few = Cell(0.1, Correlation.NEGATIVE), Cell(0.001, Correlation.STRING)
    for query, found in enumerate(made.truth(many, 5)):
        values = np.where(made.matches(many, query), made.vectors @ made.queries[query], -np.inf)
        assert found.tolist() == np.argsort(-values)[:5].tolist()
    assert all(len(found) == 2 for found in made.truth(few, 5))
