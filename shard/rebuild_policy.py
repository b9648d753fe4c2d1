"""Decides when an index should be built anew and how it is encoded, and whether the new one may replace the old. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from kintsugi.ann.encoding import UNFIT_LIMIT
from kintsugi.ann.spec import EncodingKind, EncodingSpec
from shard.checkpoint import IndexVersion

_DRIFT_WINDOW = 1000
_TOMBSTONES_LIMIT = 0.3
_REMOVALS_PER_VECTOR = 5
_RECALL_ENOUGH = 0.9
_RECALL_LOSS_TOLERATED = 0.02
_RECALL_OF_FIRST = 0.5


@dataclass(frozen=True, slots=True)
class RebuildSettings:
    """`calibrate_at`: vectors from which int8 pays. `fit_at`: vectors from which an encoding that was asked for is fitted to
    them; fewer are held in full precision, since they tell too little. `recalibrate_growth`: growth since the fitting
    after which its sample is taken for outdated, unless a larger one could tell no more. `rebuild_at`: the least wear for
    which a rebuild is worth its work."""

    calibrate_at: int = 1000
    fit_at: int = 100
    recalibrate_growth: int = 16
    rebuild_at: int = 1000


class DriftWatch:
    """Watches whether new vectors are like those that the encoding of the serving index was fitted to. Forgets by
    halves."""

    def __init__(self) -> None:
        self._vectors = 0.0
        self._unfit = 0.0

    def add(self, vectors: int, unfit_fraction: float) -> None:
        if self._vectors > 4 * _DRIFT_WINDOW:
            self._vectors /= 2
            self._unfit /= 2
        self._vectors += vectors
        self._unfit += vectors * unfit_fraction

    @property
    def drifted(self) -> bool:
        return self._vectors >= _DRIFT_WINDOW and self._unfit > UNFIT_LIMIT * self._vectors


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What should be built, and why."""

    spec: EncodingSpec
    reason: str


FULL_PRECISION = EncodingSpec(EncodingKind.F32)
_AUTOMATIC_LARGE = EncodingSpec(EncodingKind.I8)


def resolve(wanted: EncodingSpec, vectors: int, settings: RebuildSettings) -> EncodingSpec:
    """How an index of so many vectors is encoded where `wanted` is what its collection asks for."""
    if wanted.is_automatic:
        return _AUTOMATIC_LARGE if vectors >= settings.calibrate_at else FULL_PRECISION
    return wanted if vectors >= max(settings.fit_at, wanted.pca) else FULL_PRECISION


def fits(spec: EncodingSpec, vectors: int, settings: RebuildSettings) -> bool:
    """Whether to learn from the vectors. A small index of full precision needs nothing, nor has it scan codes."""
    return spec.name != FULL_PRECISION.name or vectors >= settings.calibrate_at


def reason_to_rebuild(
    serving: IndexVersion,
    drift: DriftWatch,
    settings: RebuildSettings,
    wanted: EncodingSpec,
    refused: Collection[str] = (),
) -> Rebuild | None:
    """What should replace the serving index; None when nothing should. `refused`: the encodings that came to nothing with
    these vectors already."""
    served, size = serving.index.encoding.spec, len(serving.index)
    if (due := encoding_due(served, size, settings, wanted, refused)) is not None:
        return Rebuild(due, f"{due.name} is wanted for {size} vectors, {served.name} serves")
    resolved = resolve(wanted, size, settings)
    if resolved.name in refused:
        resolved = served
    is_unfitted = serving.index.encoding.fitted is None and fits(served, size, settings)
    if is_unfitted and not refused:
        return Rebuild(resolved, f"{size} vectors are enough for scan codes")
    if served.name not in refused and (reason := _wear(serving, drift, settings)):
        return Rebuild(resolved, reason)
    return None


def encoding_due(
    served: EncodingSpec, vectors: int, settings: RebuildSettings, wanted: EncodingSpec, refused: Collection[str] = ()
) -> EncodingSpec | None:
    """The encoding that should take the place of the one that serves; None when that is as wanted, or nothing better is to
    be had. An index that shrank keeps the encoding that it grew into, until it is built anew for another reason."""
    resolved = resolve(wanted, vectors, settings)
    kept = _AUTOMATIC_LARGE if wanted.is_automatic else wanted
    return None if resolved.name in refused or served.name in (resolved.name, kept.name) else resolved


def _wear(serving: IndexVersion, drift: DriftWatch, settings: RebuildSettings) -> str:
    index, size, fitted = serving.index, len(serving.index), serving.index.encoding.fitted
    outgrown = fitted is not None and size >= settings.recalibrate_growth * fitted.vectors
    if fitted is not None and outgrown and not index.encoding.outlasts_growth:
        return f"grew from {fitted.vectors} to {size} vectors since its encoding was fitted"
    if drift.drifted:
        return "new vectors are unlike those that its encoding was fitted to"
    if index.tombstones >= max(settings.rebuild_at, _TOMBSTONES_LIMIT * (size + index.tombstones)):
        return f"{index.tombstones} removed vectors take part in searches of {size}"
    if index.removals >= max(settings.rebuild_at, _REMOVALS_PER_VECTOR * size):
        return f"{index.removals} removals wore out the graph of {size} vectors"
    return ""


def may_replace(recall: float, recall_of_old: float | None) -> bool:
    """Whether a new index is good enough: some data is such that no codes can tell it apart. Without an old one to
    compare with only the unusable is refused."""
    if recall_of_old is None:
        return recall >= _RECALL_OF_FIRST
    return recall >= min(_RECALL_ENOUGH, recall_of_old - _RECALL_LOSS_TOLERATED)
