"""Anchors as files: documents embedded by both models, which tell how the scores of one space map onto the other's. Pure.

The same kind of file as a projection (kintsugi/projections/artifact.py): content-addressed, versioned, checked before it is
believed; a forged or damaged one raises ArtifactInvalid and nothing else.
"""

from dataclasses import dataclass

from kintsugi.projections.artifact import ArtifactInvalid, pack_arrays, unpack_arrays
from kintsugi.projections.calibration import MIN_ANCHORS
from kintsugi.projections.projection import F32Matrix

MAX_ANCHORS = 2000

_MAGIC = "kintsugi-anchors"


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """`old` is n x s, `new` is n x t: the same documents in the same order."""

    old: F32Matrix
    new: F32Matrix

    def __post_init__(self) -> None:
        if len(self.old) != len(self.new) or not MIN_ANCHORS <= len(self.old) <= MAX_ANCHORS:
            raise ValueError(
                f"anchors are {len(self.old)} of the old model and {len(self.new)} of the new, must be as many of both, "
                f"{MIN_ANCHORS} to {MAX_ANCHORS}"
            )


def pack(anchors: Anchors) -> bytes:
    return pack_arrays(_MAGIC, {"old": anchors.old, "new": anchors.new})


def unpack(packed: bytes) -> Anchors:
    """Inverts `pack`. Raises ArtifactInvalid."""
    arrays = unpack_arrays(_MAGIC, packed, axes={"old": 2, "new": 2})
    try:
        return Anchors(arrays["old"], arrays["new"])
    except ValueError as error:
        raise ArtifactInvalid(f"cannot be read: {error}") from error
