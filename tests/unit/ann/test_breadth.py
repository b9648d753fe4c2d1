"""How broad searches of the graph become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.ann.breadth import MOST, Breadth


def noted(breadth, recall, searches, k=10):
    for _ in range(searches):
        breadth.note(recall, k)
    return breadth.value


def test_searches_that_miss_become_broader_step_by_step():
    """Each step is taken after some hundred hits, and the last one is the most."""
    breadth = Breadth(128)
    assert noted(breadth, 0.97, 39) == 128
    assert noted(breadth, 0.97, 1) == 192
    assert noted(breadth, 0.97, 40) == 288
    assert noted(breadth, 0.97, 400) == MOST


def test_searches_that_find_enough_stay_as_they_are():
    """Neither broader nor narrower, for as long as it lasts."""
    assert noted(Breadth(128), 0.996, 5000) == 128
    breadth = Breadth(128)
    noted(breadth, 0.9, 40)
    assert noted(breadth, 0.998, 5000) == 192


def test_searches_that_find_all_for_long_become_narrower_again():
    """But not narrower than they began."""
    breadth = Breadth(128)
    noted(breadth, 0.9, 80)
    assert breadth.value == 288
    assert noted(breadth, 1.0, 400) == 192
    assert noted(breadth, 1.0, 4000) == 128


def test_what_was_found_before_a_change_is_forgotten():
    """Else one bad time would broaden searches for ever."""
    breadth = Breadth(128)
    noted(breadth, 0.5, 40)
    assert noted(breadth, 0.999, 200) == 192


@given(
    least=st.integers(1, 1000),
    samples=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1000)), max_size=200),
)
def test_the_breadth_has_bounds(least, samples):
    """Whatever is noted."""
    breadth = Breadth(least)
    for recall, hits in samples:
        breadth.note(recall, hits)
        assert least <= breadth.value <= max(least, MOST)


@pytest.mark.parametrize("hits", [1, 10, 1000])
def test_hits_count_not_searches(hits):
    """A search for many hits tells more."""
    breadth = Breadth(100)
    assert noted(breadth, 0.9, -(-400 // hits) - 1, hits) == 100
    assert noted(breadth, 0.9, 1, hits) == 150
