"""Recall, percentiles, spreads and ratios, and the merge of partitions."""

import numpy as np
import pytest

from bench.statistics import NO_HIT, NOT_ASKED, merge_top_k, percentile, ratio, recall, spread


def test_recall_counts_true_neighbours_in_any_order():
    """Two of the first query's three, all of the second's."""
    truth = np.array([[1, 2, 3], [4, 5, 6]])
    assert recall(np.array([[3, 9, 1], [6, 5, 4]]), truth) == pytest.approx(5 / 6)


def test_recall_leaves_out_queries_that_nobody_asked():
    """A short window must not look like a bad index."""
    truth = np.array([[1, 2], [3, 4]])
    assert recall(np.array([[1, 2], [NOT_ASKED, NOT_ASKED]]), truth) == 1.0
    assert np.isnan(recall(np.full((2, 2), NOT_ASKED), truth))


def test_recall_counts_a_missing_hit_as_a_miss():
    """An answer that is too short is not a query that was not asked."""
    assert recall(np.array([[1, NO_HIT]]), np.array([[1, 2]])) == 0.5


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (90, 9), (99, 10), (100, 10), (1, 1), (10, 1), (11, 2)])
def test_a_percentile_is_a_value_that_was_measured(percent, value):
    """Nearest rank over 1..10, whatever the order they came in."""
    assert percentile([3, 1, 10, 2, 9, 8, 4, 7, 5, 6], percent) == value


def test_a_percentile_of_nothing_is_not_a_number():
    """No calls have no latency, and no percentile lies outside 0 to 100."""
    assert np.isnan(percentile([], 50))
    with pytest.raises(ValueError, match="percent is 0"):
        percentile([1.0], 0)


def test_a_spread_has_the_median_between_the_extremes():
    """One disturbed round moves an end, not the middle."""
    measured = spread([5.0, 100.0, 4.0])
    assert (measured.median, measured.low, measured.high) == (5.0, 4.0, 100.0)
    with pytest.raises(ValueError, match="0 rounds"):
        spread([])


def test_ratios_compare_round_by_round():
    """A round that is slow on both sides has the same ratio as the others."""
    measured = ratio([50.0, 5.0, 60.0], [100.0, 10.0, 100.0])
    assert (measured.median, measured.low, measured.high) == (0.5, 0.5, 0.6)
    with pytest.raises(ValueError, match="1 rounds"):
        ratio([1.0], [1.0, 2.0])


def test_partitions_merge_to_the_best_of_all():
    """Scores decide, then ids; places without a hit come last."""
    merged = merge_top_k(
        [np.array([[7, 1, NO_HIT]]), np.array([[4, 3, 2]])],
        [np.array([[0.9, 0.5, -np.inf]]), np.array([[0.8, 0.5, 0.1]])],
        4,
    )
    assert merged.tolist() == [[7, 4, 1, 3]]


def test_a_query_that_one_partition_missed_was_not_answered():
    """Half an answer must not count in the recall."""
    merged = merge_top_k(
        [np.array([[1, 2]]), np.full((1, 2), NOT_ASKED)], [np.array([[0.9, 0.8]]), np.full((1, 2), -np.inf)], 2
    )
    assert merged.tolist() == [[NOT_ASKED, NOT_ASKED]]
