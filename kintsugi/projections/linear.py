"""Fits the linear kinds of projection on paired vectors. Pure, deterministic.

All take n x s source and n x t target vectors of the same documents, prepared for the metric (unit length for cosine), and
return an affine map. With fewer pairs than dimensions only the regularised ones make sense; the report shows it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import Metric
from kintsugi.projections.projection import Affine, F32Matrix, Kind

F64Matrix = npt.NDArray[np.float64]

# Relative to the mean variance of a source dimension; the best of them is chosen on a held-out tenth.
_RIDGE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_RANK = 64
_ANCHORS = 512
_ANCHOR_STRENGTH = 1e-2


def identity(metric: Metric, source: F32Matrix, target: F32Matrix) -> Affine:
    """The vectors as they are: for models of one dimension whose spaces happen to agree."""
    _require_equal_dimensions("an identity", source, target)
    dimension = source.shape[1]
    return Affine(Kind.IDENTITY, metric, np.eye(dimension, dtype=np.float32), np.zeros(dimension, dtype=np.float32))


def drift(metric: Metric, source: F32Matrix, target: F32Matrix) -> Affine:
    """Adds the mean difference (Query Drift Compensation, arXiv 2506.00037): exact under a translation, useless under a
    rotation. The floor that other kinds must beat."""
    _require_equal_dimensions("a drift vector", source, target)
    difference = np.mean(target.astype(np.float64) - source, axis=0)
    return Affine(Kind.DRIFT, metric, np.eye(source.shape[1], dtype=np.float32), difference.astype(np.float32))


def procrustes(metric: Metric, source: F32Matrix, target: F32Matrix) -> Affine:
    """The best rotation and scale between the centred clouds (Schoenemann 1966). Angles within the source survive, so a graph
    over mapped vectors stays good. For unequal dimensions the map is semi-orthogonal, as after padding with zeros."""
    source_mean, target_mean, x, y = _centred(source, target)
    left, singular, right = np.linalg.svd(x.T @ y, full_matrices=False)
    spread = float(np.einsum("ij,ij->", x, x))
    scale = float(singular.sum()) / spread if spread else 1.0
    return _around(Kind.PROCRUSTES, metric, scale * (left @ right), source_mean, target_mean)


def ridge(metric: Metric, source: F32Matrix, target: F32Matrix) -> Affine:
    """Least squares with an L2 penalty whose strength is chosen on a held-out tenth of the pairs."""
    held_out = slice(0, None, 10)
    fitted = np.ones(len(source), dtype=np.bool_)
    fitted[held_out] = len(source) < 20
    trials = _ridges(metric, source[fitted], target[fitted], _RIDGE_STRENGTHS)
    errors = [float(np.mean((trial.apply(source[held_out]) - target[held_out]) ** 2)) for trial in trials]
    return _ridges(metric, source, target, (_RIDGE_STRENGTHS[int(np.argmin(errors))],))[0]


def adjoint(metric: Metric, source: F32Matrix, target: F32Matrix) -> Affine:
    """For queries under cosine or dot: the transpose of the ridge map from the target back to the source. It minimises the
    error of the scores <W x, t> against the source model's own <x, s> over documents with vectors s and t, where the other kinds
    minimise the error of coordinates. Its outputs are not near the target model's vectors: no use for stored ones."""
    if metric is Metric.L2:
        raise ValueError("an adjoint keeps inner products, metric l2 has none")
    back = ridge(metric, target, source)
    weights = np.ascontiguousarray(back.weights.T)
    # The bias adds the same to every document's score.
    return Affine(Kind.ADJOINT, metric, weights, np.zeros(weights.shape[1], dtype=np.float32))


def low_rank(metric: Metric, source: F32Matrix, target: F32Matrix, rank: int = _RANK) -> Affine:
    """Reduced-rank regression: the ridge map, kept to the `rank` directions in which its outputs vary most."""
    full = ridge(metric, source, target)
    target_mean = np.mean(target, axis=0, dtype=np.float64)
    outputs = source.astype(np.float64) @ full.weights + full.bias - target_mean
    _, _, directions = np.linalg.svd(outputs.T @ outputs)
    kept = directions[: min(rank, len(directions))]
    onto = kept.T @ kept
    weights = full.weights.astype(np.float64) @ onto
    bias = (full.bias - target_mean) @ onto + target_mean
    return Affine(Kind.LOW_RANK, metric, weights.astype(np.float32), bias.astype(np.float32))


def relative(metric: Metric, source: F32Matrix, target: F32Matrix, anchors: int = _ANCHORS) -> Affine:
    """Coordinates relative to anchors, documents embedded by both models (Moschella et al., 2023): finds the target vector whose
    products with the target's anchors are those of x with the source's. Looks at the anchors only: a fallback when there
    are few pairs."""
    chosen = np.linspace(0, len(source) - 1, min(anchors, len(source))).astype(np.intp)
    source_mean, target_mean, x, y = _centred(source[chosen], target[chosen])
    gram = y.T @ y
    gram[np.diag_indices_from(gram)] += _ANCHOR_STRENGTH * max(float(np.trace(gram)) / len(gram), 1e-12)
    return _around(Kind.RELATIVE, metric, x.T @ y @ np.linalg.inv(gram), source_mean, target_mean)


def _ridges(metric: Metric, source: F32Matrix, target: F32Matrix, strengths: Sequence[float]) -> list[Affine]:
    source_mean, target_mean, x, y = _centred(source, target)
    values, vectors = np.linalg.eigh(x.T @ x)
    mean_value = max(float(values.mean()), 1e-12)
    rotated = vectors.T @ (x.T @ y)
    return [
        _around(
            Kind.RIDGE,
            metric,
            vectors @ (rotated / (np.maximum(values, 0.0) + strength * mean_value)[:, np.newaxis]),
            source_mean,
            target_mean,
        )
        for strength in strengths
    ]


def _centred(source: F32Matrix, target: F32Matrix) -> tuple[F64Matrix, F64Matrix, F64Matrix, F64Matrix]:
    source_mean = np.asarray(np.mean(source, axis=0, dtype=np.float64))
    target_mean = np.asarray(np.mean(target, axis=0, dtype=np.float64))
    return source_mean, target_mean, source - source_mean, target - target_mean


def _around(kind: Kind, metric: Metric, weights: F64Matrix, source_mean: F64Matrix, target_mean: F64Matrix) -> Affine:
    """The map of centred vectors as one of vectors."""
    bias = target_mean - source_mean @ weights
    return Affine(kind, metric, np.ascontiguousarray(weights, dtype=np.float32), bias.astype(np.float32))


def _require_equal_dimensions(what: str, source: F32Matrix, target: F32Matrix) -> None:
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"{what} needs spaces of one dimension, these have {source.shape[1]} and {target.shape[1]}")
