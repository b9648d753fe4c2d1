"""Codes that are floating-point numbers of 8 to 32 bits: usearch rounds elements to them, without normalising. Pure.

The 8-bit ones are few near zero and end at 448, so elements are scaled into their range by a factor frozen at fit time.
"""

from typing import Literal

import msgspec
import numpy as np

from kintsugi.ann.elements import F32Matrix, F32Vector, even_queries
from kintsugi.ann.int8 import LARGEST_CODE, USEARCH_METRIC, calibrate
from kintsugi.metrics import Metric

CastType = Literal["f32", "f16", "bf16", "e4m3"]

_BYTES: dict[CastType, int] = {"f32": 4, "f16": 2, "bf16": 2, "e4m3": 1}
# The largest number of the types that elements could exceed.
_LARGEST: dict[CastType, float] = {"f16": 65504.0, "e4m3": 448.0}


class Cast(msgspec.Struct, frozen=True, tag="cast"):
    """Elements times `scale`, as numbers of a type."""

    dtype: CastType
    dimension: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.dimension < 1 or not 0.0 < self.scale < np.inf:
            raise ValueError(f"{self.dtype} has dimension {self.dimension} and scale {self.scale}, must be above 0")

    @property
    def usearch_dtype(self) -> str:
        return self.dtype

    @property
    def code_bytes(self) -> int:
        return self.dimension * _BYTES[self.dtype]

    def usearch_metric(self, metric: Metric) -> str:
        return USEARCH_METRIC[metric]

    def codes(self, elements: F32Matrix) -> F32Matrix:
        """What usearch is given: f32, which it rounds as it takes it."""
        largest = _LARGEST.get(self.dtype)
        if largest is None:
            return elements
        return np.asarray(np.clip(elements * np.float32(self.scale), -largest, largest), dtype=np.float32)

    def query_codes(self, metric: Metric, elements: F32Matrix) -> F32Matrix:
        if metric is Metric.L2 or self.dtype not in _LARGEST:
            return self.codes(elements)
        return np.asarray(even_queries(elements) * np.float32(_PEAK[self.dtype]), dtype=np.float32)

    def errors(self, elements: F32Matrix) -> F32Vector:
        """Whether elements of each vector are beyond the range."""
        largest = _LARGEST.get(self.dtype, np.inf)
        return np.asarray(np.max(np.abs(elements), axis=1) * self.scale > largest, dtype=np.float32)


# What an element as large as nearly the largest of the sample becomes: far enough below the largest number for others
# that are larger, far enough above the smallest for those that are smaller.
_PEAK: dict[CastType, float] = {"f16": 16.0, "e4m3": 64.0}


def fit_cast(dtype: CastType, metric: Metric, elements: F32Matrix) -> Cast:
    if dtype not in _PEAK:
        return Cast(dtype, elements.shape[1])
    int8 = calibrate(metric, elements)
    return Cast(dtype, elements.shape[1], int8.scale * _PEAK[dtype] / LARGEST_CODE)
