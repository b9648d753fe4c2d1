"""The graph and the codes beside it, kept together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.ann.encoded_index import EncodedIndex
from kintsugi.ann.encoding import f32
from kintsugi.ann.fitting import fit
from kintsugi.ann.scan_codes import ScanCodes
from kintsugi.ann.spec import EncodingKind, EncodingSpec, parse_name
from kintsugi.ann.vector_index import GraphParameters, VectorIndex
from kintsugi.metrics import Metric, scores


def data(count, dimension=16, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def i8(metric, sample):
    return fit(EncodingSpec(EncodingKind.I8), metric, sample.shape[1], sample, len(sample))


def opened(tmp_path, metric=Metric.COSINE, dimension=16, first_row=0):
    encoding = i8(metric, data(200, dimension, seed=9))
    scan = ScanCodes.create(tmp_path / "codes", encoding.scan, first_row)
    return EncodedIndex(VectorIndex(encoding, GraphParameters()), scan)


def numbered(count, first=0):
    return np.arange(first, first + count, dtype=np.uint64)


def scores_of_codes(index, metric, query, stored):
    """What the codes of the vectors say of their nearness to the query."""
    codes = index.scan.encoding.encode(stored).astype(np.float64)
    of_query = index.scan.encoding.encode_queries(query[np.newaxis])[0].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(scores(metric, of_query, codes))


@pytest.mark.parametrize("metric", list(Metric))
@settings(max_examples=25)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 40), asked=st.integers(0, 400), first=st.integers(0, 3))
def test_a_scan_returns_the_best_of_the_rows_that_are_there(tmp_path_factory, metric, seed, count, asked, first):
    """As numpy ranks them by their codes, whatever was added, replaced and removed, and whatever is asked about."""
    random = np.random.default_rng(seed)
    index = opened(tmp_path_factory.mktemp("index"), metric, first_row=first)
    truth = {}
    for _ in range(3):
        touched = np.unique(random.integers(first, 300, 80)).astype(np.uint64)
        vectors = data(len(touched), seed=int(random.integers(2**16)))
        index.add(touched, vectors)
        truth |= dict(zip(touched.tolist(), vectors, strict=True))
        gone = np.unique(random.integers(0, 300, 30)).astype(np.uint64)
        index.remove(gone)
        for row in gone.tolist():
            truth.pop(row, None)
    rows = random.permutation(5000)[:asked].astype(np.uint64)
    present = [row for row in rows.tolist() if row in truth]
    queries = data(2, seed=seed)
    for query, found in zip(queries, index.scan_rows(queries, rows, count), strict=True):
        assert len(found) == min(count, len(present))
        assert len(set(found.tolist())) == len(found)
        assert set(found.tolist()) <= set(present)
        if present:
            expected = np.sort(scores_of_codes(index, metric, query, np.stack([truth[row] for row in present])))[::-1]
            actual = scores_of_codes(index, metric, query, np.stack([truth[row] for row in found.tolist()]))
            assert actual == pytest.approx(expected[: len(found)], rel=1e-5, abs=1e-5)
    index.close()


def test_a_scan_of_many_rows_equals_that_of_few(tmp_path):
    """What is cut into blocks is put together again."""
    index = opened(tmp_path, dimension=1024)
    vectors = data(3000, 1024)
    index.add(numbered(3000), vectors)
    for place, found in enumerate(index.scan_rows(vectors[:40] + 0.01, numbered(3000), 3)):
        assert found[0] == place
    index.close()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), k=st.integers(1, 30), oversampling=st.sampled_from([None, 1.0, 4.0]))
def test_candidates_are_rows_that_are_there_each_once(tmp_path_factory, seed, k, oversampling):
    """After updates and removals, with and without a caller who wants few of them."""
    random = np.random.default_rng(seed)
    index = opened(tmp_path_factory.mktemp("index"))
    live = set()
    for _ in range(4):
        touched = np.unique(random.integers(0, 200, 60)).astype(np.uint64)
        index.add(touched, data(len(touched), seed=int(random.integers(2**16))))
        gone = np.unique(random.integers(0, 200, 40)).astype(np.uint64)
        index.remove(gone)
        live = (live | set(touched.tolist())) - set(gone.tolist())
    for found in index.candidates(data(3), k, oversampling):
        assert len(set(found.tolist())) == len(found) == min(index.wanted(k, oversampling), len(live))
        assert set(found.tolist()) <= live
    for found in index.candidates(data(3), k, count=200, allowed=lambda rows: rows % 2 == 0):
        assert set(found.tolist()) == {row for row in live if row % 2 == 0}
    assert len(index) == len(live)
    index.close()


@pytest.mark.parametrize("name", ["binary", "recurrent-2", "recurrent-3", "i8+prefix-8", "binary+pca-8", "f16+pca-8"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), k=st.integers(1, 20), oversampling=st.sampled_from([None, 2.0, 30.0]))
def test_a_cascade_leaves_the_best_of_what_the_graph_found(tmp_path_factory, name, seed, k, oversampling):
    """Rows that are there, each once, as the scan codes rank them, whatever was replaced and removed before."""
    random = np.random.default_rng(seed)
    sample = data(200, seed=9)
    encoding = fit(parse_name(name), Metric.COSINE, 16, sample, len(sample))
    index = EncodedIndex.create(encoding, GraphParameters(), tmp_path_factory.mktemp("index") / "codes", 0)
    live = set()
    for _ in range(3):
        touched = np.unique(random.integers(0, 300, 150)).astype(np.uint64)
        index.add(touched, data(len(touched), seed=int(random.integers(2**16))))
        gone = np.unique(random.integers(0, 300, 60)).astype(np.uint64)
        index.remove(gone)
        live = (live | set(touched.tolist())) - set(gone.tolist())
    queries = data(3, seed=seed)
    for query, found in zip(queries, index.candidates(queries, k, oversampling), strict=True):
        assert min(k, len(live)) <= len(found) <= min(index.wanted(k, oversampling), len(live))
        assert len(set(found.tolist())) == len(found)
        assert set(found.tolist()) <= live
        assert found.tolist() == index.scan_rows(query[np.newaxis], found, len(found))[0].tolist()
    every = np.arange(300, dtype=np.uint64)
    for query, found in zip(queries, index.candidates(queries, k, count=len(live)), strict=True):
        # With all rows to choose from, what is left is what a scan of them all finds.
        kept = len(found) if not encoding.extra_bytes else 0
        assert found[:kept].tolist() == index.scan_rows(query[np.newaxis], every, len(found))[0][:kept].tolist()
    for found in index.candidates(queries, k, count=len(live), allowed=lambda rows: rows % 2 == 0):
        assert set(found.tolist()) <= {row for row in live if row % 2 == 0}
    index.close()


def test_an_index_without_scan_codes_leaves_the_scan_to_the_caller():
    """None, rather than something less exact than the stored vectors; it takes no disk."""
    index = EncodedIndex(VectorIndex(f32(Metric.L2, 16), GraphParameters()))
    index.add(numbered(10), data(10))
    assert index.scan_rows(data(1), numbered(10), 3) is None
    assert index.mapped_bytes == 0
    assert index.memory_bytes > 10 * 64
    index.close()


def test_the_default_oversampling_is_the_collections_else_the_encodings(tmp_path):
    """A request's own wins over both; there are at least k candidates."""
    index = EncodedIndex(VectorIndex(f32(Metric.L2, 16), GraphParameters()))
    index.oversampling = 7.0
    assert (index.wanted(10), index.wanted(10, 1.5), index.wanted(10_000, 0.1)) == (70, 15, 10_000)
    assert opened(tmp_path).wanted(10) == 10 * opened(tmp_path).encoding.oversampling
