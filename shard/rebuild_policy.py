"""Decides when an index should be built anew, and whether the new one may replace the old. Pure."""

from dataclasses import dataclass

from shard.checkpoint import IndexVersion

# The clipped part of the elements is 0.05 % on data like the calibration's sample; ten times that is other data.
_CLIPPED_LIMIT = 0.005
_CLIPPED_WINDOW = 1000
_TOMBSTONES_LIMIT = 0.3
_REMOVALS_PER_VECTOR = 5
_RECALL_ENOUGH = 0.9
_RECALL_LOSS_TOLERATED = 0.02
_RECALL_OF_FIRST = 0.5


@dataclass(frozen=True, slots=True)
class RebuildSettings:
    """`calibrate_at`: vectors from which int8 pays. `recalibrate_growth`: growth since calibration after which its
    sample is taken for outdated. `rebuild_at`: the least wear for which a rebuild is worth its work."""

    calibrate_at: int = 1000
    recalibrate_growth: int = 16
    rebuild_at: int = 1000


class ClipWatch:
    """Watches whether new vectors still fit the scale of the serving index. Forgets by halves."""

    def __init__(self) -> None:
        self._vectors = 0.0
        self._clipped = 0.0

    def add(self, vectors: int, clipped_fraction: float) -> None:
        if self._vectors > 4 * _CLIPPED_WINDOW:
            self._vectors /= 2
            self._clipped /= 2
        self._vectors += vectors
        self._clipped += vectors * clipped_fraction

    @property
    def drifted(self) -> bool:
        return self._vectors >= _CLIPPED_WINDOW and self._clipped > _CLIPPED_LIMIT * self._vectors


def reason_to_rebuild(serving: IndexVersion, clip: ClipWatch, settings: RebuildSettings) -> str:
    """Why the serving index should be replaced; '' when it should not."""
    index = serving.index
    size, calibration = len(index), index.encoding.calibration
    if calibration is None and size >= settings.calibrate_at:
        return f"{size} vectors are enough to calibrate int8"
    if calibration is not None and size >= settings.recalibrate_growth * calibration.vectors:
        return f"grew from {calibration.vectors} to {size} vectors since calibration"
    if calibration is not None and clip.drifted:
        return "new vectors exceed the calibrated range"
    if index.tombstones >= max(settings.rebuild_at, _TOMBSTONES_LIMIT * (size + index.tombstones)):
        return f"{index.tombstones} removed vectors take part in searches of {size}"
    if index.removals >= max(settings.rebuild_at, _REMOVALS_PER_VECTOR * size):
        return f"{index.removals} removals wore out the graph of {size} vectors"
    return ""


def may_replace(recall: float, recall_of_old: float | None) -> bool:
    """Whether a new index is good enough. Int8 cannot tell some data apart (vectors far from the origin under l2,
    say); such data stays in full precision. Without an old one to compare with only the unusable is refused."""
    if recall_of_old is None:
        return recall >= _RECALL_OF_FIRST
    return recall >= min(_RECALL_ENOUGH, recall_of_old - _RECALL_LOSS_TOLERATED)
