"""How vectors are held in an index: full f32, or calibrated int8.

An encoding turns stored vectors and queries into the elements that usearch compares, and says how many candidates per
hit make up for what it loses. Pure.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kintsugi.ann.calibration import Calibration, F32Matrix
from kintsugi.metrics import FloatArray, Metric

Encoded = npt.NDArray[Any]

# usearch's names. On normalised vectors `cos` of the codes corrects what rounding did to their lengths.
_USEARCH_METRIC = {Metric.COSINE: "cos", Metric.DOT: "ip", Metric.L2: "l2sq"}


class Encoding(Protocol):
    """One way to hold vectors in an index."""

    @property
    def name(self) -> str:
        """What the registry and status call it."""
        ...

    @property
    def usearch_dtype(self) -> str: ...

    @property
    def usearch_metric(self) -> str: ...

    @property
    def oversampling(self) -> float:
        """Candidates per hit by default."""
        ...

    @property
    def calibration(self) -> Calibration | None: ...

    def encode(self, vectors: FloatArray) -> Encoded:
        """Encodes n x d vectors in C order."""
        ...

    def encode_queries(self, queries: FloatArray) -> Encoded:
        """Encodes n x d queries in C order."""
        ...


def prepare(metric: Metric, vectors: FloatArray) -> F32Matrix:
    """The elements that codes are made of: normalised for cosine, as they are otherwise."""
    elements = np.ascontiguousarray(vectors, dtype=np.float32)
    if metric is not Metric.COSINE:
        return elements
    # In float64, since the squares of large f32 elements overflow.
    lengths = np.sqrt(np.einsum("ij,ij->i", elements, elements, dtype=np.float64))
    lengths[lengths == 0.0] = 1.0
    return np.asarray(elements / lengths[:, np.newaxis], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class F32:
    """Full precision. For small indexes, and for data that int8 cannot tell apart."""

    metric: Metric
    name: str = "f32"
    usearch_dtype: str = "f32"
    # The graph finds nearly all; the slack covers near-ties that f32 sums decide otherwise than float64 ones.
    oversampling: float = 2.0

    @property
    def usearch_metric(self) -> str:
        return _USEARCH_METRIC[self.metric]

    @property
    def calibration(self) -> Calibration | None:
        return None

    def encode(self, vectors: FloatArray) -> Encoded:
        return prepare(self.metric, vectors)

    def encode_queries(self, queries: FloatArray) -> Encoded:
        return prepare(self.metric, queries)


@dataclass(frozen=True, slots=True)
class I8:
    """Calibrated int8 codes: a quarter of the memory, rescored exactly."""

    metric: Metric
    calibration: Calibration
    name: str = "i8"
    usearch_dtype: str = "i8"
    oversampling: float = 3.0

    @property
    def usearch_metric(self) -> str:
        return _USEARCH_METRIC[self.metric]

    def encode(self, vectors: FloatArray) -> Encoded:
        return self.calibration.codes(prepare(self.metric, vectors))

    def encode_queries(self, queries: FloatArray) -> Encoded:
        prepared = prepare(self.metric, queries)
        # Distances, other than angles and products, need both sides on one scale.
        return (
            self.calibration.codes(prepared)
            if self.metric is Metric.L2
            else self.calibration.codes_of_queries(prepared)
        )


def encoding_of(metric: Metric, name: str, calibration: Calibration | None) -> Encoding:
    """The encoding that a manifest names."""
    if name == "f32" and calibration is None:
        return F32(metric)
    if name == "i8" and calibration is not None:
        return I8(metric, calibration)
    raise ValueError(f"unknown encoding {name!r} with calibration {calibration!r}")
