"""Calibration of scores between spaces: order is kept, scales agree, and evidence decides whether to use it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.projections.calibration import MIN_ANCHORS, Calibration, calibrate, choose

CALIBRATED = [Calibration.MOMENTS, Calibration.QUANTILES]


def anchors(count=300, seed=0):
    random = np.random.default_rng(seed)
    return random.beta(2, 8, count)


@pytest.mark.parametrize("how", CALIBRATED)
def test_scores_on_another_linear_scale_come_back(how):
    """When the other space tells the same by another scale, calibration restores it, also beyond the anchors."""
    native = anchors()
    values = np.array([-0.5, 0.1, 0.3, 1.5])
    restored = calibrate(how, 3.0 * native - 7.0, native, 3.0 * values - 7.0)
    assert np.allclose(restored, values, atol=0.01)


def test_quantiles_undo_any_increasing_bend():
    """A monotone but curved relation is undone between the anchors, where mean and deviation are not enough."""
    native = anchors()
    values = np.quantile(native, np.linspace(0.05, 0.95, 30))
    bent = calibrate(Calibration.QUANTILES, native**3, native, values**3)
    straight = calibrate(Calibration.MOMENTS, native**3, native, values**3)
    assert np.allclose(bent, values, atol=0.01)
    assert np.abs(straight - values).max() > 0.05


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(Calibration)))
def test_the_order_of_documents_within_their_space_is_kept(seed, how):
    """No calibration ever turns two documents of one space around, nor gives what is not a number."""
    random = np.random.default_rng(seed)
    other, native = (
        random.standard_normal(MIN_ANCHORS) * 10 ** random.uniform(-3, 3),
        random.standard_normal(MIN_ANCHORS),
    )
    values = np.sort(random.standard_normal(40) * 3)
    mapped = calibrate(how, other, native, values)
    assert np.isfinite(mapped).all()
    assert (np.diff(mapped) >= -1e-9 * np.abs(mapped).max()).all()


@pytest.mark.parametrize("how", CALIBRATED)
def test_anchors_that_all_score_alike_give_finite_scores(how):
    """A query to which every anchor is the same says nothing, and breaks nothing."""
    mapped = calibrate(how, np.ones(MIN_ANCHORS), anchors(MIN_ANCHORS), np.array([0.0, 1.0, 2.0]))
    assert np.isfinite(mapped).all()


def test_too_few_or_unpaired_anchors_are_refused():
    """The message tells how many there are and must be."""
    with pytest.raises(ValueError, match=f"at least {MIN_ANCHORS}"):
        calibrate(Calibration.QUANTILES, np.ones(MIN_ANCHORS - 1), np.ones(MIN_ANCHORS - 1), np.ones(3))
    with pytest.raises(ValueError, match="as many of both"):
        calibrate(Calibration.QUANTILES, np.ones(60), np.ones(61), np.ones(3))


def test_evidence_chooses_and_raw_is_never_taken_between_native_spaces():
    """The better calibration wins; raw scores stay where nothing beats them beyond noise, but not between native spaces."""
    random = np.random.default_rng(0)
    raw = random.random(200)
    better, noisy, worse = raw + 0.1, raw + 0.3 * random.standard_normal(200), raw - 0.1
    assert (
        choose({Calibration.RAW: raw, Calibration.MOMENTS: worse, Calibration.QUANTILES: better}, native_spaces=False)
        == "quantiles"
    )
    assert (
        choose(
            {Calibration.RAW: raw, Calibration.MOMENTS: worse, Calibration.QUANTILES: worse - 1}, native_spaces=False
        )
        == "raw"
    )
    assert (
        choose({Calibration.RAW: raw, Calibration.MOMENTS: noisy - noisy.mean() + raw.mean()}, native_spaces=False)
        == "raw"
    )
    assert (
        choose({Calibration.RAW: raw, Calibration.MOMENTS: worse, Calibration.QUANTILES: worse - 1}, native_spaces=True)
        == "moments"
    )
