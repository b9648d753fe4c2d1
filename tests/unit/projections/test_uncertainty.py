"""The uncertainty of a map: learned from pairs, told of documents that were never seen, kept as a checked file."""

import numpy as np
import pytest

from kintsugi.metrics import Metric
from kintsugi.projections import uncertainty
from kintsugi.projections.artifact import ArtifactInvalid, pack_arrays
from kintsugi.projections.linear import ridge
from kintsugi.projections.projection import unit


def pairs(count, seed=0, dimension=16):
    """A linear map that is the blurrier, the larger a document's first element is."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((dimension, dimension)))[0]
    old = unit(random.standard_normal((count, dimension)))
    blur = 0.02 + np.abs(old[:, :1])
    return old, unit(old @ turn + blur * random.standard_normal((count, dimension)))


def fitted():
    old, new = pairs(4000)
    mapping = ridge(Metric.COSINE, old, new)
    return mapping, uncertainty.fit(mapping, old, new)


def test_documents_that_a_map_misses_by_more_are_less_sure():
    """On pairs never fitted on, what is predicted goes with what happens."""
    mapping, predictor = fitted()
    old, new = pairs(2000, seed=1)
    missed = uncertainty.residuals(mapping, old, new)
    assert np.corrcoef(predictor.of(old), missed)[0, 1] > 0.4
    assert predictor.of(old).mean() == pytest.approx(missed.mean(), abs=0.1)


def test_vectors_may_be_of_any_length_for_cosine():
    """Stored vectors are as clients gave them."""
    _, predictor = fitted()
    old, _ = pairs(10, seed=2)
    np.testing.assert_allclose(predictor.of(7 * old), predictor.of(old), atol=1e-4)


def test_a_packed_predictor_predicts_the_same():
    """Reading inverts writing."""
    _, predictor = fitted()
    old, _ = pairs(10, seed=2)
    np.testing.assert_allclose(uncertainty.unpack(uncertainty.pack(predictor)).of(old), predictor.of(old), atol=1e-6)


def test_an_element_that_never_varies_tells_nothing():
    """A dimension that is the same for all gives finite predictions."""
    old, new = pairs(500)
    old[:, 3] = 0.0
    mapping = ridge(Metric.COSINE, old, new)
    assert np.isfinite(uncertainty.fit(mapping, old, new).of(old)).all()


def test_forged_files_and_other_dimensions_are_refused():
    """A file of other arrays or lengths is invalid; vectors of another model are an error that names both."""
    _, predictor = fitted()
    packed = uncertainty.pack(predictor)
    with pytest.raises(ArtifactInvalid, match="checksum"):
        uncertainty.unpack(packed[:-1] + b"\0")
    ones = {name: np.ones(3, dtype=np.float32) for name in ("centre", "linear", "squares", "level", "of_unit_length")}
    with pytest.raises(ArtifactInvalid, match="level has 3 elements, must have 1"):
        uncertainty.unpack(pack_arrays("kintsugi-uncertainty", ones))
    with pytest.raises(ValueError, match="must be n x 16"):
        predictor.of(np.ones((2, 5), dtype=np.float32))
