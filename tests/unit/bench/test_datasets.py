"""Generated and given vectors, and their exact neighbours."""

import numpy as np
import pytest

from bench.datasets import generate, prepare, read
from bench.workloads import DatasetSpec
from kintsugi.metrics import Metric

SPEC = DatasetSpec("tiny", 500, 24, queries=7, intrinsic=4)


def test_a_seed_gives_the_same_set_everywhere(tmp_path):
    """Results of two machines are comparable only then."""
    vectors, queries = generate(SPEC, tmp_path / "a.npy", 3)
    again, queries_again = generate(SPEC, tmp_path / "b.npy", 3)
    other, _ = generate(SPEC, tmp_path / "c.npy", 4)
    assert np.array_equal(vectors, again)
    assert np.array_equal(queries, queries_again)
    assert not np.array_equal(vectors, other)


def test_generated_vectors_lie_near_a_subspace(tmp_path):
    """Four directions hold nearly all of the variance, as a few do of real embeddings."""
    vectors, _ = generate(SPEC, tmp_path / "v.npy", 1)
    values = np.linalg.svd(np.asarray(vectors), compute_uv=False) ** 2
    assert values[:4].sum() / values.sum() > 0.9
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_last_rows_of_a_plain_matrix_become_its_queries(tmp_path):
    """A .npy has nowhere else to take them from."""
    matrix = np.random.default_rng(1).standard_normal((100, 8))
    np.save(tmp_path / "v.npy", matrix)
    vectors, queries = read(tmp_path / "v.npy", 4)
    assert (vectors.shape, queries.shape, vectors.dtype) == ((96, 8), (4, 8), np.float32)


def test_an_archive_names_its_vectors_and_queries(tmp_path):
    """Both our names and those of the common benchmark files."""
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "v.npz", train=rng.standard_normal((50, 8)), test=rng.standard_normal((5, 8)))
    dataset = prepare(tmp_path / "v.npz", tmp_path, metric=Metric.L2, k=3, seed=1, queries=2)
    assert dataset.vectors.shape == (50, 8)
    assert dataset.queries.shape == (2, 8)
    assert dataset.truth.shape == (2, 3)


def test_an_archive_without_vectors_is_refused(tmp_path):
    """The message says what there is, and what there must be."""
    np.savez(tmp_path / "v.npz", points=np.zeros((5, 8)))
    with pytest.raises(ValueError, match="has points, must have vectors or train"):
        read(tmp_path / "v.npz", 2)
