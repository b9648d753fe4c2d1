"""How vectors are held in an index: which of their parts, as which codes, compared how.

Outline: 1. prepare (normalise for cosine, subtract the centre for l2); 2. reduce, if asked for; 3. code. Queries take the
same way. The graph compares codes by `usearch_metric`. Beside the graph's, an encoding knows scan codes: int8 of the whole
vector. Everything learned is frozen here: the codes of one index all come from one encoding. Pure.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.ann.binary import Binary, Bits
from kintsugi.ann.casts import Cast
from kintsugi.ann.elements import F32Matrix, F32Vector, prepare, unit
from kintsugi.ann.int8 import Int8, is_ample
from kintsugi.ann.recurrent import Planes, Recurrent
from kintsugi.ann.reduction import Prefix, Reduction
from kintsugi.ann.spec import EncodingKind, EncodingSpec
from kintsugi.metrics import FloatArray, Metric

Encoded = npt.NDArray[Any]
Coder = Cast | Int8 | Binary | Recurrent

# Of vectors like the sample about 1 % are beyond the bounds.
UNFIT_LIMIT = 0.05
# The graph finds nearly all; the slack covers near-ties that f32 sums decide otherwise than float64 ones.
OVERSAMPLING_F32 = 2.0
# Asked for 6 candidates per hit, the graph is asked for 48 codes, of which the extra codes leave the best 6.
WIDENING = 8.0


class Fitted(msgspec.Struct, frozen=True):
    """What an encoding was fitted to. `vectors` is how many the index was to hold when the sample of `sample_vectors` was
    drawn: growth far beyond it asks for a new fit. The errors are
    what nearly all of the sample stayed below."""

    vectors: int
    sample_vectors: int
    reduction_error: float
    coding_error: float
    scan_error: float


class Encoding(msgspec.Struct, frozen=True, eq=False):
    """Make it with `fit`, or `f32`. `fitted` is None when nothing was learned. `spec` has no oversampling: it is the
    searcher's affair. `oversampling`: candidates per hit that are taken from the codes in memory by default."""

    spec: EncodingSpec
    metric: Metric
    dimension: int
    coder: Coder
    oversampling: float
    reduction: Reduction | None = None
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
    def extra_bytes(self) -> int:
        """Of these, those of a row's extra codes, which are not in the graph."""
        return self.coder.extra_bytes if isinstance(self.coder, Recurrent) else 0

    @property
    def widening(self) -> float:
        """How many codes the graph is asked for per candidate: the extra codes, if there are any, choose among them."""
        return WIDENING if isinstance(self.coder, Recurrent) else 1.0

    @property
    def scan(self) -> "Encoding | None":
        """Int8 of whole vectors, to compare rows without the graph. This encoding itself when it is that already; None
        when nothing was fitted."""
        if self.scan_coder is None or (self.spec.kind is EncodingKind.I8 and self.reduction is None):
            return None if self.scan_coder is None else self
        spec, coder = EncodingSpec(EncodingKind.I8), self.scan_coder
        return Encoding(spec, self.metric, self.dimension, coder, 1.0, None, self.centre, coder, self.fitted)

    @property
    def is_narrowed(self) -> bool:
        """Whether its candidates are so many that scan codes should choose among them before stored vectors do."""
        return self.reduction is not None or isinstance(self.coder, Binary | Recurrent)

    @property
    def prefix(self) -> int:
        """The prefix that the codes are of; 0 when they are not of one."""
        return self.reduction.dimension if isinstance(self.reduction, Prefix) else 0

    @property
    def outlasts_growth(self) -> bool:
        """Whether more vectors of the same kind would not lead to another encoding: all it learned is a scale, from enough
        elements. (Vectors of another kind show in unfit_fraction.)"""
        if self.fitted is None or self.reduction is not None or not isinstance(self.coder, Cast | Int8):
            return False
        return is_ample(self.metric, self.fitted.sample_vectors * self.dimension)

    def encode(self, vectors: FloatArray) -> Encoded:
        """The graph's codes of n x d vectors, in C order."""
        return self.coder.codes(self._elements(vectors))

    def encode_queries(self, queries: FloatArray) -> Encoded:
        """What the graph's codes are compared with, for n x d queries, in C order."""
        return self.coder.query_codes(self.metric, self._elements(queries))

    def extra_codes(self, vectors: FloatArray) -> Bits:
        """N x extra_bytes."""
        return self._recurrent().extra_codes(self._elements(vectors))

    def planes(self, graph_codes: Bits, extra_codes: Bits) -> Planes:
        """All bits of rows, from what the graph and the extra codes hold of each."""
        return self._recurrent().assembled(graph_codes, extra_codes)

    def planes_of_queries(self, queries: FloatArray) -> Planes:
        return self._recurrent().planes_of_queries(self._elements(queries))

    def nearness(self, queries: Planes, query: int, rows: Planes, first: int, end: int) -> npt.NDArray[np.float64]:
        """How near rows[first:end] are to a query by all their bits."""
        return self._recurrent().nearness(queries, query, rows, first, end)

    def unfit_fraction(self, vectors: FloatArray) -> float:
        """The part of the vectors that is coded worse than nearly all of the sample was. Far above UNFIT_LIMIT, it is
        other data than the encoding was fitted to."""
        if self.fitted is None or not len(vectors):
            return 0.0
        prepared = self._prepared(vectors)
        elements = reduced(self.metric, self.reduction, prepared)
        unfit = self.coder.errors(elements) > self.fitted.coding_error
        if self.reduction is not None:
            unfit |= (
                reduction_errors(prepared, reduced(Metric.DOT, self.reduction, prepared)) > self.fitted.reduction_error
            )
        if self.scan_coder is not None and not (self.reduction is None and isinstance(self.coder, Int8)):
            unfit |= self.scan_coder.errors(prepared) > self.fitted.scan_error
        return float(np.mean(unfit))

    def _elements(self, vectors: FloatArray) -> F32Matrix:
        return reduced(self.metric, self.reduction, self._prepared(vectors))

    def _prepared(self, vectors: FloatArray) -> F32Matrix:
        prepared = prepare(self.metric, vectors)
        return prepared if self.centre is None else prepared - self.centre

    def _recurrent(self) -> Recurrent:
        if not isinstance(self.coder, Recurrent):
            raise TypeError(f"encoding {self.name} has no extra codes")
        return self.coder


def reduced(metric: Metric, reduction: Reduction | None, prepared: F32Matrix) -> F32Matrix:
    if reduction is None:
        return prepared
    left = reduction.reduce(prepared)
    return unit(left) if metric is Metric.COSINE else left


def reduction_errors(prepared: F32Matrix, left: F32Matrix) -> F32Vector:
    """The part of each vector's length that is not in what is left of it, squared."""
    whole = np.einsum("ij,ij->i", prepared, prepared, dtype=np.float64)
    kept = np.einsum("ij,ij->i", left, left, dtype=np.float64)
    return np.asarray(1.0 - kept / np.maximum(whole, np.finfo(np.float64).tiny), dtype=np.float32)


def f32(metric: Metric, dimension: int) -> Encoding:
    """Full precision, without scan codes: for an index so small that there is nothing to learn from."""
    return Encoding(EncodingSpec(EncodingKind.F32), metric, dimension, Cast("f32", dimension), OVERSAMPLING_F32)
