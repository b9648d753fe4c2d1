"""The three metrics: how vectors are scored exactly. Higher is better. Pure numpy.

Scores are computed in float64 from the stored elements, so they match an oracle within rounding.
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


class Metric(StrEnum):
    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"


class StoredType(StrEnum):
    """The number format of stored vectors."""

    F32 = "f32"
    F16 = "f16"

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return np.dtype("<f4") if self is StoredType.F32 else np.dtype("<f2")


def _as_f64(values: object) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _dots(rows: FloatArray, others: FloatArray) -> npt.NDArray[np.float64]:
    # Not `rows @ query`: its last bit depends on a row's place in the matrix, so equal vectors would not tie.
    return _as_f64(np.vecdot(rows, others))


def scores(metric: Metric, query: FloatArray, vectors: FloatArray) -> npt.NDArray[np.float64]:
    """Scores `vectors` (n x d) against one `query` (d). Returns n float64 scores, higher is better:
    cosine similarity, inner product, or the negated squared Euclidean distance."""
    rows = vectors.astype(np.float64, copy=False)
    q = query.astype(np.float64, copy=False)
    if metric is Metric.DOT:
        return _dots(rows, q)
    if metric is Metric.L2:
        difference = rows - q
        return -_dots(difference, difference)
    return _as_f64(_dots(rows, q) / (np.sqrt(_dots(rows, rows)) * np.sqrt(q @ q)))
