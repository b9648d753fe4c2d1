"""Codes of signs: what their distances mean, that centre, lift and rotation do what they are for, and more bits help."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numkong import cdist

from kintsugi.ann.fitting import fit
from kintsugi.ann.rotation import BlockRotation, random_rotation
from kintsugi.ann.spec import parse_name
from kintsugi.metrics import Metric
from tests.unit.ann.measuring import bent, recall_at_10, truth

SIGN_METRICS = [Metric.COSINE, Metric.DOT]


def signs(bits):
    return np.unpackbits(bits, axis=-1).astype(np.float64) * 2 - 1


@settings(max_examples=25, deadline=None)
@given(dimension=st.integers(2, 70), metric=st.sampled_from(SIGN_METRICS), seed=st.integers(0, 2**16))
def test_hamming_ranks_as_products_of_signs(dimension, metric, seed):
    """Also where the dimension is no multiple of 8: each code is whole bytes of signs in the sign space."""
    vectors = np.random.default_rng(seed).standard_normal((60, dimension)).astype(np.float32)
    encoding = fit(parse_name("binary"), metric, dimension, vectors, 60, seed)
    codes, asked = encoding.encode(vectors), encoding.encode_queries(vectors[:5])
    assert codes.shape == (60, encoding.code_bytes)
    assert encoding.graph_dimension == 8 * encoding.code_bytes >= dimension
    products = signs(asked) @ signs(codes).T
    differing = np.asarray(cdist(asked, codes, "hamming", dtype="uint1"))
    assert (products == encoding.graph_dimension - 2 * differing).all()
    turned = encoding.coder.space.turn(encoding._elements(vectors))
    assert (signs(codes) == np.where(turned > 0, 1, -1)).all()


@settings(max_examples=25, deadline=None)
@given(
    bits=st.integers(2, 4),
    dimension=st.integers(3, 50),
    metric=st.sampled_from(SIGN_METRICS),
    seed=st.integers(0, 2**16),
)
def test_symmetric_distances_rank_as_the_vectors_that_the_codes_stand_for(bits, dimension, metric, seed):
    """The scorer equals minus the squared distance of the decoded vectors, but for the query's own square."""
    vectors = np.random.default_rng(seed).standard_normal((40, dimension)).astype(np.float32)
    encoding = fit(parse_name(f"recurrent-{bits}"), metric, dimension, vectors, 40, seed)
    asked = encoding.planes_of_queries(vectors[:3])
    planes = encoding.planes(encoding.encode(vectors), encoding.extra_codes(vectors))
    assert (planes.bits[:, 0] == encoding.encode(vectors)).all()
    decoded_queries = encoding.coder.decoded(asked).astype(np.float64)
    decoded = encoding.coder.decoded(planes).astype(np.float64)
    for query in range(3):
        nearness = encoding.nearness(asked, query, planes, 5, 40)
        distances = np.sum((decoded[5:] - decoded_queries[query]) ** 2, axis=1)
        expected = decoded_queries[query] @ decoded_queries[query] - distances
        # The squares are kept in half precision.
        assert nearness == pytest.approx(expected, rel=3e-3, abs=3e-3 * float(planes.square.max()))


def test_one_more_bit_stands_for_the_vectors_more_closely():
    """The error of what codes stand for falls with every bit, to well below that of signs."""
    vectors = bent(2000, 60)
    errors = []
    for bits in (2, 3, 4):
        encoding = fit(parse_name(f"recurrent-{bits}"), Metric.COSINE, 60, vectors, 2000)
        planes = encoding.planes(encoding.encode(vectors), encoding.extra_codes(vectors))
        turned = encoding.coder.space.turn(encoding._elements(vectors))
        errors.append(float(np.mean(np.linalg.norm(encoding.coder.decoded(planes) - turned, axis=1))))
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]


@pytest.mark.parametrize(("metric", "sigma"), [(Metric.COSINE, 0.0), (Metric.DOT, 0.0), (Metric.DOT, 0.7)])
def test_signs_find_the_hits_and_more_bits_find_them_sooner(metric, sigma):
    """Recall@10 among as many candidates rises with the bits; the default candidates of signs hold nearly all, also of
    inner products of vectors with very different lengths."""
    random = np.random.default_rng(5)
    vectors, queries = bent(4000, 64, seed=1, mean=1.0), bent(60, 64, seed=2, mean=1.0)
    vectors *= random.lognormal(0.0, sigma, (len(vectors), 1)).astype(np.float32)
    expected = truth(metric, vectors, queries)
    recalls = []
    binary = fit(parse_name("binary"), metric, 64, vectors[:2000], 4000)
    hamming = np.asarray(cdist(binary.encode_queries(queries), binary.encode(vectors), "hamming", dtype="uint1"))
    order = np.argsort(hamming, axis=1, kind="stable")
    recalls.append(recall_at_10(expected, order[:, :30]))
    assert recall_at_10(expected, order[:, : int(10 * binary.oversampling)]) >= 0.97
    for bits in (2, 3, 4):
        encoding = fit(parse_name(f"recurrent-{bits}"), metric, 64, vectors[:2000], 4000)
        asked = encoding.planes_of_queries(queries)
        planes = encoding.planes(encoding.encode(vectors), encoding.extra_codes(vectors))
        nearness = np.stack([encoding.nearness(asked, query, planes, 0, 4000) for query in range(60)])
        recalls.append(recall_at_10(expected, np.argsort(-nearness, axis=1)[:, :30]))
    assert recalls[1] > recalls[0] + 0.05
    assert sorted(recalls) == recalls
    assert recalls[-1] >= 0.99


@pytest.mark.parametrize("dimension", [8, 1024, 1032, 2056])
def test_rotations_keep_lengths_and_angles_and_spread_what_one_element_holds(dimension):
    """Dense ones, and those made of blocks; an axis ends up everywhere."""
    rotation = random_rotation(dimension, np.random.default_rng(1))
    assert isinstance(rotation, BlockRotation) == (dimension > 1024)
    vectors = np.random.default_rng(2).standard_normal((6, dimension)).astype(np.float32)
    turned = rotation.turn(vectors)
    assert turned @ turned.T == pytest.approx(vectors @ vectors.T, rel=0.01, abs=0.01 * dimension**0.5)
    axis = np.zeros((1, dimension), dtype=np.float32)
    axis[0, 3] = 1.0
    assert np.abs(rotation.turn(axis)).max() < max(0.95, 8 / dimension**0.5)


def test_signs_of_distances_are_refused():
    """Signs tell directions. It is said before anything is fitted."""
    for name in ("binary", "recurrent-3+pca-8"):
        with pytest.raises(ValueError, match=r"kind is \w+, must be another one with metric l2"):
            fit(parse_name(name), Metric.L2, 16, np.ones((10, 16), dtype=np.float32), 10)


@pytest.mark.parametrize("vectors", [np.zeros((50, 12)), np.ones((50, 12)), np.empty((0, 12)), np.ones((1, 12)) * 1e30])
@pytest.mark.parametrize("name", ["binary", "recurrent-4", "recurrent-2+pca-8"])
@pytest.mark.parametrize("metric", SIGN_METRICS)
def test_samples_that_tell_nothing_still_give_an_encoding(vectors, name, metric):
    """All the same, all zero, extreme, or none at all."""
    sample = vectors.astype(np.float32)
    encoding = fit(parse_name(name), metric, 12, sample, len(sample))
    some = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    codes = encoding.encode(some)
    assert codes.shape == (5, encoding.code_bytes - encoding.extra_bytes)
    if encoding.extra_bytes:
        planes = encoding.planes(codes, encoding.extra_codes(some))
        assert np.isfinite(encoding.nearness(encoding.planes_of_queries(some), 0, planes, 0, 5)).all()
