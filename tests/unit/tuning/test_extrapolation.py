"""From the recall of a sample to that of the collection."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.tuning.extrapolation import Measured, estimate

RECALLS = st.floats(0.0, 1.0)


def test_the_whole_collection_is_what_was_measured():
    """Nothing is extrapolated, so nothing is made worse."""
    told = estimate(Measured(1000, 0.97, 0.01), None, 1000)
    assert (told.expected, told.at_worst) == (0.97, 0.97)


def test_a_loss_that_grew_goes_on_growing():
    """Doubled with 16 times the vectors it has the exponent 1/4: at worst the usual one, expected three fifths of it."""
    told = estimate(Measured(16_000, 0.98, 0.0), Measured(1000, 0.99, 0.0), 256_000)
    assert told.expected == pytest.approx(1 - 0.02 * 2**0.6)
    assert told.at_worst == pytest.approx(1 - 0.02 * 16**0.4)


def test_a_loss_that_grew_fast_is_expected_to_slow_down():
    """Four times the loss with four times the vectors: at worst it goes on like that."""
    told = estimate(Measured(4000, 0.992, 0.0), Measured(1000, 0.998, 0.0), 16_000)
    assert told.at_worst == pytest.approx(1 - 0.008 * 4)
    assert told.expected == pytest.approx(1 - 0.008 * 4**0.6)


@given(RECALLS, RECALLS, st.integers(1, 1000))
def test_estimates_are_recalls_and_the_worst_is_no_better(smaller, larger, growth):
    """Whatever noise the measurements had, and no better than the sample, for a collection is no easier."""
    told = estimate(Measured(4000, larger, 0.002), Measured(1000, smaller, 0.002), 4000 * growth)
    assert 0.0 <= told.at_worst <= told.expected <= larger + 1e-12


def test_a_perfect_sample_promises_no_perfection():
    """500 queries that lost nothing may have been lucky."""
    perfect = Measured.of(4000, np.ones(500))
    told = estimate(perfect, Measured.of(1000, np.ones(500)), 400_000)
    assert told.expected == 1.0
    assert 0.99 < told.at_worst < 1.0


def test_the_error_of_a_recall_is_that_of_its_mean():
    """Queries are the unit: the neighbours of one are lost together."""
    measured = Measured.of(10, np.array([0.0, 1.0] * 50))
    assert measured.recall == 0.5
    assert measured.error == pytest.approx(0.05, rel=0.02)
