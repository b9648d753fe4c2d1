"""Fits every kind of projection that two spaces allow. Pure."""

from collections.abc import Callable, Iterator

from kintsugi.metrics import Metric
from kintsugi.projections import linear
from kintsugi.projections.mlp import mlp
from kintsugi.projections.projection import F32Matrix, Kind, Projection

Fit = Callable[[Metric, F32Matrix, F32Matrix], Projection]

# Simplest first: among equally good ones the first wins.
_FITS: dict[Kind, Fit] = {
    Kind.IDENTITY: linear.identity,
    Kind.DRIFT: linear.drift,
    Kind.PROCRUSTES: linear.procrustes,
    Kind.RIDGE: linear.ridge,
    Kind.ADJOINT: linear.adjoint,
    Kind.LOW_RANK: linear.low_rank,
    Kind.RELATIVE: linear.relative,
    Kind.MLP: mlp,
}
# Of equal dimensions only.
_SAME_DIMENSION = (Kind.IDENTITY, Kind.DRIFT)


def kinds(metric: Metric, source_dimension: int, target_dimension: int, *, for_queries: bool) -> list[Kind]:
    """What can be fitted between two spaces, for queries or for stored vectors."""
    chosen = [kind for kind in _FITS if source_dimension == target_dimension or kind not in _SAME_DIMENSION]
    if not for_queries or metric is Metric.L2:
        chosen.remove(Kind.ADJOINT)
    return chosen


def fit(kind: Kind, metric: Metric, source: F32Matrix, target: F32Matrix) -> Projection:
    """Fits one kind from n x s source vectors to n x t target vectors, prepared for the metric."""
    return _FITS[kind](metric, source, target)


def fit_all(
    metric: Metric, source: F32Matrix, target: F32Matrix, *, for_queries: bool
) -> Iterator[tuple[Kind, Projection]]:
    """Fits all that the spaces allow, the simplest first."""
    for kind in kinds(metric, source.shape[1], target.shape[1], for_queries=for_queries):
        yield kind, fit(kind, metric, source, target)
