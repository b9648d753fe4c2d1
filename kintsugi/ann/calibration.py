"""Chooses the scale by which vectors become int8 codes.

usearch's own cast normalises and truncates, which loses recall and turns inner products into cosines. Scaling by
127 / q, where q is the 99.95 % quantile of the magnitudes of a sample, then rounding and clipping, keeps both.
A calibration is frozen: codes of one index all use one scale. Pure.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

QUANTILE = 0.9995
_MAX_CODE = 127.0

Codes = npt.NDArray[np.int8]
F32Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibration:
    """`scale` turns elements into codes. `vectors` is how many the index was to hold when the sample of
    `sample_vectors` was drawn: growth far beyond it asks for a new one."""

    scale: float
    vectors: int
    sample_vectors: int
    quantile: float = QUANTILE

    def codes(self, prepared: F32Matrix) -> Codes:
        """Rounds scaled elements to -127..127."""
        return _clip(prepared * np.float32(self.scale))

    def codes_of_queries(self, prepared: F32Matrix) -> Codes:
        """Rounds each query by a scale of its own, for measures whose order does not depend on a query's length: a
        query far shorter than the documents would else be left with a few distinct codes."""
        largest = np.max(np.abs(prepared), axis=1, keepdims=True).astype(np.float64)
        largest[largest == 0.0] = 1.0
        return _clip(np.asarray(prepared * (_MAX_CODE / largest), dtype=np.float32))

    def clipped_fraction(self, prepared: F32Matrix) -> float:
        """The part of the elements that the scale cannot represent. Near 1 - quantile on data like the sample."""
        if not prepared.size:
            return 0.0
        return float(np.mean(np.abs(prepared) * np.float32(self.scale) > _MAX_CODE + 0.5))


def _clip(scaled: F32Matrix) -> Codes:
    np.rint(scaled, out=scaled)
    np.clip(scaled, -_MAX_CODE, _MAX_CODE, out=scaled)
    return scaled.astype(np.int8)


def calibrate(prepared: F32Matrix, vectors: int) -> Calibration:
    """Calibrates on a sample of the vectors as they will be encoded (normalised for cosine)."""
    magnitudes = np.abs(prepared).ravel()
    bound = float(np.quantile(magnitudes, QUANTILE)) if magnitudes.size else 0.0
    if bound == 0.0 and magnitudes.size:
        bound = float(magnitudes.max())
    scale = _MAX_CODE / bound if bound > 0.0 else 1.0
    # Elements near the smallest float would need an infinite scale.
    scale = min(scale, float(np.finfo(np.float32).max) / 1e6)
    return Calibration(scale=scale, vectors=vectors, sample_vectors=len(prepared))
