"""Codes that are int8, by one scale for all elements.

usearch's own cast normalises and truncates, which loses recall and turns inner products into cosines. Scaling by
127 / q, where q is a high quantile of the magnitudes of a sample, then rounding and clipping, keeps both. Pure.
"""

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.ann.elements import F32Matrix, F32Vector, even_queries, relative_errors
from kintsugi.metrics import Metric

# Few elements are clipped, and the others get finer steps. With inner products the hits are long vectors, whose elements
# are those that would be clipped: there nearly none may be.
_QUANTILE = {Metric.COSINE: 0.9995, Metric.DOT: 0.99999, Metric.L2: 0.9995}
LARGEST_CODE = 127.0
# From so many clipped elements on, a larger sample hardly moves the scale: their number is known to a tenth.
_AMPLY_CLIPPED = 100
# Of normalised vectors, products of the codes are in the order of their angles where rounding and clipping left all lengths
# alike, which their spread among a sample tells (deviation over mean), and take less time. Where lengths differ more, searches
# found less: there `cos` of the codes corrects what was done to them.
_EVEN_SPREAD = 0.003
USEARCH_METRIC = {Metric.COSINE: "cos", Metric.DOT: "ip", Metric.L2: "l2sq"}

Codes = npt.NDArray[np.int8]


class Int8(msgspec.Struct, frozen=True, tag="int8"):
    """Rounds elements times `scale` to -127..127. `is_even`: the codes of normalised vectors are all about as long."""

    dimension: int
    scale: float
    is_even: bool = False

    def __post_init__(self) -> None:
        if self.dimension < 1 or not 0.0 < self.scale < np.inf:
            raise ValueError(f"int8 codes have dimension {self.dimension} and scale {self.scale}, must be above 0")

    @property
    def usearch_dtype(self) -> str:
        return "i8"

    @property
    def code_bytes(self) -> int:
        return self.dimension

    def usearch_metric(self, metric: Metric) -> str:
        return USEARCH_METRIC[Metric.DOT if metric is Metric.COSINE and self.is_even else metric]

    def codes(self, elements: F32Matrix) -> Codes:
        return _clip(elements * np.float32(self.scale))

    def query_codes(self, metric: Metric, elements: F32Matrix) -> Codes:
        # Distances, other than angles and products, need both sides on one scale.
        return self.codes(elements) if metric is Metric.L2 else _clip(even_queries(elements) * np.float32(LARGEST_CODE))

    def errors(self, elements: F32Matrix) -> F32Vector:
        """What rounding and clipping did to each vector, relative to its length."""
        return relative_errors(elements, self.codes(elements) * np.float32(1.0 / self.scale))


def _clip(scaled: F32Matrix) -> Codes:
    np.rint(scaled, out=scaled)
    np.clip(scaled, -LARGEST_CODE, LARGEST_CODE, out=scaled)
    return scaled.astype(np.int8)


def calibrate(metric: Metric, elements: F32Matrix) -> Int8:
    """Chooses the scale by a sample of the elements as they will be encoded (normalised for cosine)."""
    magnitudes = np.abs(elements).ravel()
    bound = float(np.quantile(magnitudes, _QUANTILE[metric])) if magnitudes.size else 0.0
    if bound == 0.0 and magnitudes.size:
        bound = float(magnitudes.max())
    scale = LARGEST_CODE / bound if bound > 0.0 else 1.0
    # Elements near the smallest float would need an infinite scale.
    scale = min(scale, float(np.finfo(np.float32).max) / 1e6)
    return Int8(elements.shape[1], scale)


def evened(metric: Metric, int8: Int8, elements: F32Matrix) -> Int8:
    """For whole codes, whose lengths a sample of the elements tells; those of a part of the elements differ."""
    is_even = metric is Metric.COSINE and _spread(int8.codes(elements)) <= _EVEN_SPREAD
    return msgspec.structs.replace(int8, is_even=is_even)


def _spread(codes: Codes) -> float:
    """Of the lengths of codes, relative to their mean."""
    squares = np.einsum("ij,ij->i", codes, codes, dtype=np.int64)
    lengths = np.sqrt(squares)
    return float(lengths.std() / lengths.mean()) if lengths.any() else 0.0


def is_ample(metric: Metric, elements: int) -> bool:
    """Whether a sample of so many elements shows where their largest ones are, so that a larger one would hardly tell more."""
    return elements * (1.0 - _QUANTILE[metric]) >= _AMPLY_CLIPPED
