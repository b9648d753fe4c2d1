"""How vectors are held in an index: which of their parts, as which codes, compared how.

Outline: 1. prepare (normalise for cosine, subtract the centre for l2); 2. reduce, if asked for; 3. code. Queries take the
same way. The graph compares codes by `usearch_metric`. Beside the graph's, an encoding knows scan codes: int8 of the whole
vector. Everything learned is frozen here: the codes of one index all come from one encoding. Pure.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.ann.calibration import Calibration
from kintsugi.ann.casts import Cast
from kintsugi.ann.elements import F32Matrix, F32Vector, prepare
from kintsugi.ann.int8 import USEARCH_METRIC, Int8
from kintsugi.ann.spec import EncodingKind, EncodingSpec
from kintsugi.metrics import FloatArray, Metric

Encoded = npt.NDArray[Any]
Coder = Cast | Int8

# Of vectors like the sample about 1 % are beyond the bounds.
UNFIT_LIMIT = 0.05
# The graph finds nearly all; the slack covers near-ties that f32 sums decide otherwise than float64 ones.
OVERSAMPLING_F32 = 2.0


class Fitted(msgspec.Struct, frozen=True):
    """What an encoding was fitted to. `vectors` is how many the index was to hold when the sample of `sample_vectors` was
    drawn: growth far beyond it asks for a new fit. `coding_error` and `scan_error`: what 99 % of the sample stayed below."""

    vectors: int
    sample_vectors: int
    coding_error: float
    scan_error: float


class Encoding(msgspec.Struct, frozen=True, eq=False):
    """Make it with `fit`, or `f32`. `fitted` is None when nothing was learned. `spec` has no oversampling: it is the
    searcher's affair. `oversampling`: candidates per hit that the graph is asked for by default."""

    spec: EncodingSpec
    metric: Metric
    dimension: int
    coder: Coder
    oversampling: float
    centre: F32Vector | None = None
    scan_coder: Int8 | None = None
    fitted: Fitted | None = None

    @property
    def name(self) -> str:
        """What the registry and status call it."""
        return self.spec.name

    @property
    def usearch_dtype(self) -> str:
        return self.coder.usearch_dtype

    @property
    def usearch_metric(self) -> str:
        return self.coder.usearch_metric(self.metric)

    @property
    def graph_dimension(self) -> int:
        """The elements (or bits) of the graph's codes."""
        return self.coder.dimension

    @property
    def code_bytes(self) -> int:
        """Memory per vector, without the graph's links."""
        return self.coder.code_bytes

    @property
    def scan(self) -> "Encoding | None":
        """Int8 of whole vectors, to compare rows without the graph. This encoding itself when it is that already; None
        when nothing was fitted."""
        if self.scan_coder is None:
            return None
        if self.scan_coder == self.coder:
            return self
        spec, coder = EncodingSpec(EncodingKind.I8), self.scan_coder
        return Encoding(spec, self.metric, self.dimension, coder, 1.0, self.centre, coder, self.fitted)

    def encode(self, vectors: FloatArray) -> Encoded:
        """The graph's codes of n x d vectors, in C order."""
        return self.coder.codes(self._elements(vectors))

    def encode_queries(self, queries: FloatArray) -> Encoded:
        """What the graph's codes are compared with, for n x d queries, in C order."""
        return self.coder.query_codes(self.metric, self._elements(queries))

    def unfit_fraction(self, vectors: FloatArray) -> float:
        """The part of the vectors that is coded worse than nearly all of the sample was. Far above UNFIT_LIMIT, it is
        other data than the encoding was fitted to."""
        if self.fitted is None or not len(vectors):
            return 0.0
        elements = self._elements(vectors)
        unfit = self.coder.errors(elements) > self.fitted.coding_error
        if self.scan_coder is not None:
            unfit |= self.scan_coder.errors(elements) > self.fitted.scan_error
        return float(np.mean(unfit))

    def _elements(self, vectors: FloatArray) -> F32Matrix:
        prepared = prepare(self.metric, vectors)
        return prepared if self.centre is None else prepared - self.centre


def f32(metric: Metric, dimension: int) -> Encoding:
    """Full precision, without scan codes: for an index so small that there is nothing to learn from."""
    return Encoding(EncodingSpec(EncodingKind.F32), metric, dimension, Cast("f32", dimension), OVERSAMPLING_F32)


@dataclass(frozen=True, slots=True)
class F32:
    """Superseded by `f32` and `fit`; kept until their users have moved."""

    metric: Metric
    name: str = "f32"
    usearch_dtype: str = "f32"
    oversampling: float = 2.0

    @property
    def usearch_metric(self) -> str:
        return USEARCH_METRIC[self.metric]

    @property
    def calibration(self) -> Calibration | None:
        return None

    def encode(self, vectors: FloatArray) -> Encoded:
        return prepare(self.metric, vectors)

    def encode_queries(self, queries: FloatArray) -> Encoded:
        return prepare(self.metric, queries)


@dataclass(frozen=True, slots=True)
class I8:
    """Superseded by `fit`; kept until its users have moved."""

    metric: Metric
    calibration: Calibration
    name: str = "i8"
    usearch_dtype: str = "i8"
    oversampling: float = 3.0

    @property
    def usearch_metric(self) -> str:
        return USEARCH_METRIC[self.metric]

    def encode(self, vectors: FloatArray) -> Encoded:
        return self.calibration.codes(prepare(self.metric, vectors))

    def encode_queries(self, queries: FloatArray) -> Encoded:
        prepared = prepare(self.metric, queries)
        return (
            self.calibration.codes(prepared)
            if self.metric is Metric.L2
            else self.calibration.codes_of_queries(prepared)
        )


def encoding_of(metric: Metric, name: str, calibration: Calibration | None) -> Any:
    """The encoding that a manifest names."""
    if name == "f32" and calibration is None:
        return F32(metric)
    if name == "i8" and calibration is not None:
        return I8(metric, calibration)
    raise ValueError(f"unknown encoding {name!r} with calibration {calibration!r}")
