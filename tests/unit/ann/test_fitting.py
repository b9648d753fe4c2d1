"""Fitting and packing: equal inputs, equal codes; nothing that was damaged is taken; drift is seen."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.ann.artifact import MAX_ARTIFACT_BYTES, pack, unpack
from kintsugi.ann.encoding import UNFIT_LIMIT, f32
from kintsugi.ann.fitting import fit
from kintsugi.ann.reduction import Components
from kintsugi.ann.spec import MAX_COMPONENT_ELEMENTS, SIGNS, EncodingKind, EncodingSpec, parse_name, problem_of
from kintsugi.metrics import Metric
from tests.unit.ann.measuring import bent, recall_at_10, truth

NAMES = ["f32", "f16", "bf16", "e4m3", "i8", "binary", "recurrent-2", "recurrent-4"]
REDUCTIONS = ["", "+prefix-20", "+pca-20"]


def encodings(metric, dimension=44, sample=None, seed=3):
    vectors = bent(600, dimension) if sample is None else sample
    for name in NAMES:
        for reduction in REDUCTIONS:
            spec = parse_name(name + reduction)
            if problem_of(spec, dimension, metric) is None:
                yield fit(spec, metric, dimension, vectors, 5000, seed)


def all_codes(encoding, vectors):
    codes = [encoding.encode(vectors), encoding.encode_queries(vectors), encoding.scan.encode(vectors)]
    return [*codes, encoding.extra_codes(vectors)] if encoding.extra_bytes else codes


@pytest.mark.parametrize("metric", list(Metric))
def test_what_is_unpacked_codes_as_what_was_packed_and_so_does_a_second_fit(metric):
    """Bit for bit, with every kind and reduction, queries and scan codes included."""
    vectors = bent(50, 44, seed=8)
    for encoding, again in zip(encodings(metric), encodings(metric), strict=True):
        unpacked = unpack(metric, 44, pack(encoding))
        assert pack(unpacked) == pack(encoding) == pack(again)
        for one, other in zip(all_codes(encoding, vectors), all_codes(unpacked, vectors), strict=True):
            assert one.dtype == other.dtype
            assert (one == other).all()
        assert (unpacked.name, unpacked.oversampling, unpacked.fitted) == (
            encoding.name,
            encoding.oversampling,
            encoding.fitted,
        )
        assert encoding.fitted.vectors == 5000


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), cut=st.booleans())
def test_bytes_that_were_damaged_or_cut_are_refused(place, change, cut):
    """Whatever byte it is: a ValueError, nothing else."""
    packed = bytearray(pack(fit(parse_name("recurrent-2"), Metric.DOT, 9, bent(100, 9), 100)))
    at = int(place * len(packed))
    if cut:
        del packed[at:]
    else:
        packed[at] = (packed[at] + change) % 256
    with pytest.raises(ValueError, match="encoding"):
        unpack(Metric.DOT, 9, bytes(packed))


def test_an_encoding_of_another_collection_is_refused():
    """Metric and dimension are part of what was packed."""
    packed = pack(f32(Metric.DOT, 9))
    assert unpack(Metric.DOT, 9, packed).name == "f32"
    for metric, dimension in ((Metric.L2, 9), (Metric.DOT, 8)):
        with pytest.raises(ValueError, match="encoding is for dot of dimension 9, expected"):
            unpack(metric, dimension, packed)


@pytest.mark.parametrize("name", ["binary", "recurrent-4"])
def test_the_largest_dimension_fits_the_bound(name):
    """A rotation of 8192 dimensions and the most components there may be of them take less than what an encoding may."""
    sample = np.random.default_rng(0).standard_normal((60, 8192)).astype(np.float32)
    encoding = fit(parse_name(name), Metric.DOT, 8192, sample, 60)
    packed = pack(encoding)
    assert (unpack(Metric.DOT, 8192, packed).encode(sample[:3]) == encoding.encode(sample[:3])).all()
    most = Components(np.zeros((8192, MAX_COMPONENT_ELEMENTS // 8192), dtype=np.float16))
    assert len(packed) < len(pack(msgspec.structs.replace(encoding, reduction=most))) < MAX_ARTIFACT_BYTES


def test_what_does_not_fit_the_bound_is_refused():
    """Rather than written and never read again."""
    large = Components(np.zeros((8192, 3000), dtype=np.float16))
    with pytest.raises(ValueError, match=r"encoding f32 takes 491\d+ bytes, must be at most 33554432"):
        pack(msgspec.structs.replace(f32(Metric.DOT, 8192), reduction=large))


def test_specifications_that_cannot_be_are_told_by_field_value_and_bound():
    """By metric and dimension, before anything is fitted."""
    assert problem_of(parse_name("i8+pca-1536"), 8192) is None
    assert problem_of(parse_name("i8+pca-1537"), 8192) == ("pca", "is 1537", "must be 8 to 1536")
    assert problem_of(parse_name("i8+prefix-65"), 64) == ("prefix", "is 65", "must be 8 to 64")
    assert {
        spec for spec in EncodingKind if problem_of(EncodingSpec(spec, 2 if spec == "recurrent" else 0), 64, Metric.L2)
    } == SIGNS
    sample = bent(10, 12)
    with pytest.raises(ValueError, match="encoding auto must be decided"):
        fit(EncodingSpec(), Metric.DOT, 12, sample, 10)
    with pytest.raises(ValueError, match=r"sample has shape \(10, 12\), expected n x 13"):
        fit(parse_name("i8"), Metric.DOT, 13, sample, 10)


@pytest.mark.parametrize("metric", list(Metric))
def test_vectors_like_the_sample_fit_and_others_do_not(metric):
    """Of new vectors like the sample only a few are unfit; of those from elsewhere or, where it matters, of another length,
    far more."""
    sample = bent(3000, 44)
    away = np.random.default_rng(4).standard_normal((300, 44)).astype(np.float32)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    for encoding in encodings(metric, sample=sample):
        assert encoding.unfit_fraction(bent(2000, 44, seed=9)) < UNFIT_LIMIT
        assert encoding.unfit_fraction(sample[:0]) == 0.0
        if metric is not Metric.COSINE:
            assert encoding.unfit_fraction(bent(300, 44, seed=9) * 5) > 4 * UNFIT_LIMIT
        if encoding.spec.kind in SIGNS or encoding.spec.pca:
            assert encoding.unfit_fraction(away) > 2 * UNFIT_LIMIT, encoding.name
    assert f32(metric, 44).unfit_fraction(away) == 0.0


@pytest.mark.parametrize("metric", list(Metric))
def test_scan_codes_are_of_whole_vectors_whatever_the_encoding(metric):
    """And the index's own where that is int8 already."""
    vectors = bent(30, 44, seed=8)
    plain = fit(parse_name("i8"), metric, 44, bent(600, 44), 5000, 3)
    assert plain.scan is plain
    for encoding in encodings(metric):
        assert encoding.scan.graph_dimension == 44
        assert (encoding.scan.encode(vectors) == plain.encode(vectors)).all()
    assert f32(metric, 44).scan is None


@pytest.mark.parametrize("metric", list(Metric))
def test_principal_components_keep_what_matters_wherever_it_is(metric):
    """On data that varies in few directions, none of them an axis, components keep the hits that a prefix loses."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((64, 64)))
    vectors = (bent(3000, 64, seed=1, intrinsic=6) @ turn).astype(np.float32)
    queries = (bent(40, 64, seed=2, intrinsic=6) @ turn).astype(np.float32)
    expected = truth(metric, vectors, queries)
    recalls = {}
    for name in ("f32+pca-16", "f32+prefix-16"):
        encoding = fit(parse_name(name), metric, 64, vectors[:1500], 3000)
        assert (encoding.graph_dimension, encoding.code_bytes) == (16, 64)
        codes, asked = encoding.encode(vectors), encoding.encode_queries(queries)
        order = [np.argsort(np.sum((codes - query) ** 2, axis=1))[:60] for query in asked]
        if metric is Metric.DOT:
            order = np.argsort(-(asked @ codes.T), axis=1)[:, :60]
        recalls[name] = recall_at_10(expected, order)
    assert recalls["f32+pca-16"] > recalls["f32+prefix-16"] + 0.05


def test_renormalised_prefixes_are_unit_vectors():
    """What usearch's cosine sees of a prefix is its direction."""
    vectors = bent(100, 44)
    codes = fit(parse_name("f32+prefix-20"), Metric.COSINE, 44, vectors, 100).encode(vectors)
    assert np.linalg.norm(codes, axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    assert codes[7] == pytest.approx(vectors[7, :20] / np.linalg.norm(vectors[7, :20]), abs=1e-5)


def test_components_of_fewer_vectors_than_wanted_are_filled_up():
    """Orthogonal ones, whatever the sample tells."""
    encoding = fit(parse_name("i8+pca-30"), Metric.COSINE, 44, bent(10, 44), 10)
    directions = encoding.reduction.directions.astype(np.float64)
    assert directions.T @ directions == pytest.approx(np.eye(30), abs=0.01)
