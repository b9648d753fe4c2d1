"""The kinds of projection: each is exact on the world it was made for, and they compose."""

import numpy as np
import pytest

from kintsugi.metrics import Metric
from kintsugi.projections import linear
from kintsugi.projections.fitting import fit, fit_all, kinds
from kintsugi.projections.measures import recall, top
from kintsugi.projections.mlp import Training, mlp
from kintsugi.projections.projection import Chain, Kind, unit


def cloud(count=400, dimension=12, seed=0):
    """Vectors with a few strong directions, as embeddings have."""
    random = np.random.default_rng(seed)
    spectrum = np.linspace(2.0, 0.2, dimension)
    return (random.standard_normal((count, dimension)) * spectrum + 0.3).astype(np.float32)


def rotation(source, target, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((source, target)))[0].astype(np.float32)


def test_a_drift_vector_undoes_a_translation_and_nothing_else():
    """Adding the mean difference is exact for a shifted space, and far off for a turned one."""
    source = cloud()
    shifted = source + np.linspace(-1, 1, 12, dtype=np.float32)
    assert np.allclose(linear.drift(Metric.L2, source, shifted).apply(source), shifted, atol=1e-4)
    turned = source @ rotation(12, 12)
    assert not np.allclose(linear.drift(Metric.L2, source, turned).apply(source), turned, atol=0.5)


def test_procrustes_undoes_a_rotation_with_scale_and_shift():
    """A turned, scaled and shifted space is mapped exactly."""
    source = cloud()
    target = 2.5 * (source @ rotation(12, 12)) + 0.7
    assert np.allclose(linear.procrustes(Metric.L2, source, target).apply(source), target, atol=1e-3)


@pytest.mark.parametrize(("source_dimension", "target_dimension"), [(12, 20), (20, 12)])
def test_procrustes_keeps_angles_between_spaces_of_unequal_dimension(source_dimension, target_dimension):
    """Into more dimensions no distance changes; into fewer, the map is still semi-orthogonal."""
    source = cloud(dimension=source_dimension)
    target = source @ rotation(max(source_dimension, target_dimension), target_dimension)[:source_dimension]
    weights = linear.procrustes(Metric.L2, source, target).weights.astype(np.float64)
    gram = weights @ weights.T if source_dimension < target_dimension else weights.T @ weights
    assert np.allclose(gram / gram[0, 0], np.eye(len(gram)), atol=1e-4)


def test_ridge_finds_a_linear_map_between_unequal_dimensions():
    """A linear relation with a little noise is recovered on pairs that were not fitted."""
    source = cloud(2000)
    weights = np.random.default_rng(3).standard_normal((12, 20)).astype(np.float32)
    target = source @ weights + 0.5
    fitted = linear.ridge(Metric.L2, source[:1500], target[:1500])
    error = fitted.apply(source[1500:]) - target[1500:]
    assert np.abs(error).max() < 0.02 * np.abs(target).max()


def test_low_rank_of_full_rank_is_ridge_and_of_less_has_that_rank():
    """Keeping all directions changes nothing; keeping three leaves a map of rank three."""
    source, target = cloud(), cloud(seed=4) + cloud() @ rotation(12, 12)
    full = linear.low_rank(Metric.L2, source, target, rank=12)
    assert np.allclose(full.apply(source), linear.ridge(Metric.L2, source, target).apply(source), atol=1e-3)
    assert np.linalg.matrix_rank(linear.low_rank(Metric.L2, source, target, rank=3).weights, tol=1e-4) == 3


def test_an_adjoint_ranks_documents_as_the_mapped_gallery_does():
    """<W q, d> equals <q, M d> for the ridge map M, but for what M adds to all of them alike."""
    old, new = cloud(500, 12), cloud(500, 12) @ np.random.default_rng(5).standard_normal((12, 18)).astype(np.float32)
    queries = cloud(20, 18, seed=6)
    bridged = linear.adjoint(Metric.DOT, new, old).apply(queries) @ old.T
    mapped = queries @ linear.ridge(Metric.DOT, old, new).apply(old).T
    difference = mapped - bridged
    assert np.allclose(difference, difference[:, :1], rtol=1e-3, atol=1e-2 * np.abs(mapped).max())


def test_relative_projection_survives_any_rotation_of_the_target():
    """Anchors name directions by documents: an isometric space is mapped with full recall."""
    source = unit(cloud(600, 16))
    target = source @ rotation(16, 16)
    mapped = linear.relative(Metric.COSINE, source, target).apply(source[:50])
    truth = top(Metric.COSINE, target[:50], target, 5)
    assert recall(top(Metric.COSINE, mapped, target, 5), truth).mean() > 0.95


def test_the_mlp_bends_where_a_linear_map_cannot():
    """On a bent space the trained layer lowers the held-out error of the ridge map."""
    source = unit(cloud(6000, 12))
    target = unit(np.tanh(3 * source @ rotation(12, 12)) ** 3)
    training = Training(rate=1e-2, hidden=64, epochs=80)
    fitted, straight = (
        mlp(Metric.COSINE, source[:5000], target[:5000], training),
        linear.ridge(Metric.COSINE, source[:5000], target[:5000]),
    )
    errors = [np.mean((one.apply(source[5000:]) - target[5000:]) ** 2) for one in (fitted, straight)]
    assert errors[0] < 0.8 * errors[1]


def test_training_is_deterministic_for_a_seed_and_tells_its_progress():
    """The same pairs and seed give the same weights, epoch by epoch."""
    source, target = unit(cloud(300)), unit(cloud(300, seed=8))
    epochs = []
    training = Training(hidden=8, epochs=3, patience=9, progress=lambda done, of: epochs.append((done, of)))
    once, again = (mlp(Metric.COSINE, source, target, training) for _ in range(2))
    assert np.array_equal(once.hidden, again.hidden)
    assert np.array_equal(once.output, again.output)
    assert epochs == [(1, 3), (2, 3), (3, 3)] * 2


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("for_queries", [True, False])
def test_every_kind_maps_vectors_of_every_shape(metric, for_queries):
    """All kinds that two spaces allow give finite vectors of the target's dimension, of unit length for cosine."""
    source, target = (unit(part) for part in (cloud(300, 10), cloud(300, 14, seed=2)))
    for kind, fitted in fit_all(metric, source, target, for_queries=for_queries):
        mapped = fitted.apply(source[:7])
        assert fitted.kind is kind
        assert (fitted.source_dimension, fitted.target_dimension) == (10, 14)
        assert mapped.shape == (7, 14)
        assert np.isfinite(mapped).all()
        if metric is Metric.COSINE:
            assert np.allclose(np.linalg.norm(mapped, axis=1), 1.0, atol=1e-5)


def test_kinds_that_need_equal_dimensions_are_offered_for_those_only():
    """Identity and drift vanish between unequal spaces, the adjoint for stored vectors and for l2."""
    assert Kind.DRIFT in kinds(Metric.COSINE, 8, 8, for_queries=True)
    assert not {Kind.DRIFT, Kind.IDENTITY} & set(kinds(Metric.COSINE, 8, 9, for_queries=True))
    assert Kind.ADJOINT not in kinds(Metric.COSINE, 8, 8, for_queries=False)
    assert Kind.ADJOINT not in kinds(Metric.L2, 8, 8, for_queries=True)
    with pytest.raises(ValueError, match="these have 12 and 13"):
        fit(Kind.DRIFT, Metric.COSINE, cloud(), cloud(dimension=13))
    with pytest.raises(ValueError, match="metric l2"):
        fit(Kind.ADJOINT, Metric.L2, cloud(), cloud())


def test_a_chain_applies_its_links_in_order_and_checks_that_they_fit():
    """Two upgrades compose; links of unequal dimension are refused, and so is an empty chain."""
    first = linear.ridge(Metric.COSINE, unit(cloud()), unit(cloud(dimension=16, seed=2)))
    second = linear.ridge(Metric.COSINE, unit(cloud(dimension=16, seed=2)), unit(cloud(dimension=9, seed=3)))
    chain = Chain((first, second))
    queries = cloud(5)
    assert np.array_equal(chain.apply(queries), second.apply(first.apply(queries)))
    assert (chain.kind, chain.source_dimension, chain.target_dimension) == (Kind.CHAIN, 12, 9)
    with pytest.raises(ValueError, match="to 9 dimensions cannot be followed"):
        Chain((second, first))
    with pytest.raises(ValueError, match="0 links"):
        Chain(())


def test_vectors_of_another_dimension_are_refused():
    """A projection never maps what it was not made for."""
    fitted = linear.ridge(Metric.COSINE, cloud(), cloud(dimension=16, seed=2))
    with pytest.raises(ValueError, match="must be n x 12"):
        fitted.apply(cloud(dimension=13))
