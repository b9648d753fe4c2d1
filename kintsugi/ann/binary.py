"""Codes of one bit per element: on which side of the centre a vector lies in each direction of its sign space. Pure."""

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.ann.elements import F32Matrix, F32Vector
from kintsugi.ann.sign_space import SignSpace
from kintsugi.metrics import Metric

Bits = npt.NDArray[np.uint8]


class Binary(msgspec.Struct, frozen=True, eq=False, tag="binary"):
    """Packed signs, the first in the highest bit."""

    space: SignSpace

    @property
    def usearch_dtype(self) -> str:
        return "b1"

    @property
    def dimension(self) -> int:
        return self.space.dimension

    @property
    def code_bytes(self) -> int:
        return self.space.dimension // 8

    def usearch_metric(self, _metric: Metric) -> str:
        return "hamming"

    def codes(self, elements: F32Matrix) -> Bits:
        return np.packbits(self.space.turn(elements) > 0, axis=1)

    def query_codes(self, _metric: Metric, elements: F32Matrix) -> Bits:
        return np.packbits(self.space.turn_queries(elements) > 0, axis=1)

    def errors(self, elements: F32Matrix) -> F32Vector:
        return self.space.errors(elements)
