"""Calibrated int8, and the floating-point casts: ranges, degenerate samples, and recall with each metric."""

import numpy as np
import pytest
from usearch.index import Index

from kintsugi.ann.fitting import fit
from kintsugi.ann.int8 import calibrate
from kintsugi.ann.spec import parse_name
from kintsugi.metrics import Metric
from tests.unit.ann.measuring import bent, recall_at_10, truth


def data(count, dimension=16, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def test_calibrated_codes_use_the_whole_range():
    """Scaling by the quantile spreads codes, rounds, and clips what is beyond."""
    vectors = data(2000) * 0.01
    vectors[0, 0] = 5.0
    coder = calibrate(Metric.COSINE, vectors)
    codes = coder.codes(vectors)
    assert codes[0, 0] == 127
    assert codes.min() <= -120
    assert np.abs(codes - vectors * coder.scale)[np.abs(codes) < 127].max() <= 0.5001


@pytest.mark.parametrize("constant", [0.0, 1e-38, 1e38])
@pytest.mark.parametrize("metric", list(Metric))
def test_degenerate_samples_give_a_usable_scale(constant, metric):
    """All-zero and extreme samples calibrate to finite codes."""
    vectors = np.full((10, 4), constant, dtype=np.float32)
    coder = calibrate(metric, vectors)
    assert np.isfinite(coder.scale)
    assert (coder.codes(vectors) == (127 if constant > 1e-30 else coder.codes(vectors)[0, 0])).all()


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "e4m3", "i8"])
@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_fine_codes_keep_the_hits_among_few_candidates(name, metric, sigma):
    """Recall@10 of the default candidates, compared as usearch compares codes, is above 0.99: with every metric, on
    vectors of one length or lengths over two magnitudes, far from the origin under l2."""
    random = np.random.default_rng(3)
    vectors, queries = bent(4000, 48, seed=1), bent(50, 48, seed=2)
    vectors = (vectors * random.lognormal(0.0, sigma, (len(vectors), 1)) * 100).astype(np.float32)
    if metric is Metric.L2:
        vectors, queries = vectors + 500, queries * 100 + 500
    encoding = fit(parse_name(name), metric, 48, vectors[:2000], len(vectors))
    index = Index(ndim=encoding.graph_dimension, metric=encoding.usearch_metric, dtype=encoding.usearch_dtype)
    index.add(np.arange(len(vectors), dtype=np.uint64), encoding.encode(vectors), threads=1)
    codes = encoding.encode_queries(queries)
    found = index.search(codes, int(10 * encoding.oversampling), threads=1, exact=True).keys
    assert recall_at_10(truth(metric, vectors, queries), found) >= 0.99


@pytest.mark.parametrize(("outliers", "compared_by"), [(0.0, "ip"), (30.0, "cos")])
def test_codes_of_even_lengths_are_compared_by_products(outliers, compared_by):
    """Which find the same, faster. Where clipping took much of some vectors and nothing of others, angles correct it."""
    random = np.random.default_rng(4)
    vectors, queries = random.standard_normal((4000, 384)), random.standard_normal((50, 384))
    vectors[::7, 0] += outliers
    encoding = fit(parse_name("i8"), Metric.COSINE, 384, vectors[:2000].astype(np.float32), len(vectors))
    assert encoding.usearch_metric == compared_by
    index = Index(ndim=384, metric=encoding.usearch_metric, dtype="i8")
    index.add(np.arange(len(vectors), dtype=np.uint64), encoding.encode(vectors.astype(np.float32)), threads=1)
    found = index.search(encoding.encode_queries(queries.astype(np.float32)), 20, threads=1, exact=True).keys
    assert recall_at_10(truth(Metric.COSINE, vectors, queries), found) >= 0.99


def test_only_angles_of_whole_codes_become_products():
    """Inner products are products anyway, distances never; codes that are compared in parts differ in length."""
    vectors = np.random.default_rng(1).standard_normal((2000, 64)).astype(np.float32)
    metrics = {metric: fit(parse_name("i8"), metric, 64, vectors, 2000).usearch_metric for metric in Metric}
    assert metrics[Metric.DOT] == "ip"
    assert metrics[Metric.L2] == "l2sq"
    assert fit(parse_name("binary"), Metric.COSINE, 64, vectors, 2000).scan.usearch_metric == "cos"


def test_without_its_own_calibration_the_inner_product_of_long_vectors_is_lost():
    """The longest vectors are the hits, so that hardly any of their elements are clipped."""
    vectors = bent(4000, 48, seed=1) * np.random.default_rng(3).lognormal(0.0, 1.0, (4000, 1)).astype(np.float32)
    clipped = {
        metric: float(np.mean(np.abs(calibrate(metric, vectors).codes(vectors)) == 127))
        for metric in (Metric.DOT, Metric.COSINE)
    }
    assert clipped[Metric.DOT] < 1e-4 < clipped[Metric.COSINE]


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", ["f16", "e4m3", "i8", "binary", "recurrent-2"])
def test_codes_of_queries_do_not_depend_on_their_length(factor, name):
    """With inner products, whose order does not either."""
    vectors = data(500)
    encoding = fit(parse_name(name), Metric.DOT, 16, vectors, len(vectors))
    expected, actual = encoding.encode_queries(vectors[:9]), encoding.encode_queries(vectors[:9] * np.float32(factor))
    assert np.allclose(actual.astype(np.float64), expected, rtol=1e-5, atol=1)


def test_elements_beyond_the_range_of_a_cast_are_bounded():
    """Far outliers become the largest number rather than infinite."""
    encoding = fit(parse_name("f16"), Metric.DOT, 16, data(2000), 2000)
    assert encoding.encode(data(1) * 1e9).max() == 65504.0
    assert encoding.unfit_fraction(data(50) * 1e9) == 1.0


@pytest.mark.parametrize("metric", list(Metric))
def test_a_scale_from_enough_elements_outlasts_growth(metric):
    """Samples that call themselves ample agree on the scale within a twentieth, even of heavy tails; a small sample, or an encoding
    that learned more than a scale, waits for a larger one."""
    random = np.random.default_rng(5)
    vectors = random.standard_t(6, (4000, 384)).astype(np.float32)
    if metric is Metric.DOT:
        vectors = np.tile(vectors, (8, 1)) * random.lognormal(0.0, 0.01, (32_000, 1)).astype(np.float32)
    half = len(vectors) // 2
    one, other = (fit(parse_name("i8"), metric, 384, part, len(vectors)) for part in (vectors[:half], vectors))
    assert other.outlasts_growth
    assert other.coder.scale == pytest.approx(one.coder.scale, rel=0.05)
    assert not fit(parse_name("i8"), metric, 384, vectors[:200], len(vectors)).outlasts_growth
    assert not fit(parse_name("i8+pca-48"), metric, 384, vectors[:4000], len(vectors)).outlasts_growth
