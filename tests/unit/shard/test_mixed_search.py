"""One ranking out of scores in two spaces, against a numpy oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.metrics import Metric, scores
from kintsugi.projections.calibration import Calibration, calibrate
from shard.mixed_search import AnchorScores, Scale, Spaces, bridged, merged
from shard.rescore import Scored

CALIBRATED = st.sampled_from([Calibration.MOMENTS, Calibration.QUANTILES])


def vectors(count, dimension, seed):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def scored(values, first_row):
    order = np.argsort(-values, kind="stable")
    return Scored((order + first_row).astype(np.uint64), values[order])


@pytest.mark.parametrize("metric", list(Metric))
def test_anchor_scores_of_a_batch_are_the_metrics_scores(metric):
    """One product for all queries gives what scoring each of them gives."""
    anchors, queries = vectors(60, 12, 1), vectors(5, 12, 2)
    found = AnchorScores(metric, anchors).of(queries)
    expected = np.stack([scores(metric, query, anchors) for query in queries])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    how=CALIBRATED,
    metric=st.sampled_from(list(Metric)),
    migrated=st.integers(0, 40),
    k=st.sampled_from([1, 5, 20, 100]),
    seed=st.integers(0, 2**31),
)
def test_the_best_of_both_parts_are_the_best_of_all(how, metric, migrated, k, seed):
    """For any split of the documents the k best equal those of one list of native and calibrated scores; native ones untouched."""
    new, old = vectors(40, 6, seed), vectors(40, 9, seed + 1)
    anchors_new, anchors_old = vectors(70, 6, seed + 2), vectors(70, 9, seed + 3)
    queries_new, queries_old = vectors(3, 6, seed + 4), vectors(3, 9, seed + 5)
    scale = Scale(how, AnchorScores(metric, anchors_new), AnchorScores(metric, anchors_old)).of(
        queries_new, queries_old
    )
    own = [scored(scores(metric, query, new[:migrated]), 0) for query in queries_new]
    other = [scored(scores(metric, query, old[migrated:]), migrated) for query in queries_old]
    found = merged(own, [scale.calibrated(place, one) for place, one in enumerate(other)], k)
    for place, one in enumerate(found):
        native = scores(metric, queries_new[place], new[:migrated])
        anchors = [
            AnchorScores(metric, a).of(q)[place] for a, q in ((anchors_old, queries_old), (anchors_new, queries_new))
        ]
        rest = calibrate(how, *anchors, scores(metric, queries_old[place], old[migrated:]))
        everything = np.concatenate([native, rest])
        assert one.scores.tolist() == sorted(everything.tolist(), reverse=True)[: len(one.scores)]
        assert len(one.rows) >= min(k, 40)
        assert everything[one.rows.astype(int)].tolist() == one.scores.tolist()


def test_all_that_score_as_the_last_hit_are_kept():
    """Which of equal scores is a hit is for ids to decide."""
    own = Scored(np.array([1, 2], np.uint64), np.array([0.9, 0.5]))
    other = Scored(np.array([3, 4], np.uint64), np.array([0.5, 0.1]))
    (found,) = merged([own], [other], 2)
    assert found.rows.tolist() == [1, 2, 3]


def test_queries_of_both_spaces_travel_together():
    """What was joined comes apart again, whatever was cut out of it."""
    own, other = vectors(4, 5, 1), vectors(4, 7, 2)
    joined = Spaces.joined(own, other)
    spaces = Spaces(5)
    assert np.array_equal(spaces.own(joined[2:3]), own[2:3])
    assert np.array_equal(spaces.other(joined[2:3]), other[2:3])


def test_given_queries_are_not_projected():
    """The client's own vectors win over the bridge; with neither there is no way."""
    own, other = vectors(2, 5, 1), vectors(2, 7, 2)
    assert bridged(None, own, other) is other
    assert bridged(None, own, None) is None
