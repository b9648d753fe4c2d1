"""Codes of u = 2..4 bits per element after BEBR: the signs of a vector, then the signs of what the bits before left over.

Outline: 1. turn the vector in its sign space, and take its direction f; 2. b = signs of f; 3. per further bit:
reconstruct f^ = b / |b|, and add 2^-t times the signs of f - f^ to b. Plane 0, the first signs, is the graph's code. The
others are the extra codes of a row, with two numbers: the length of the vector per length of its b, and its square.

BEBR maps linearly before and after each of these steps. Here the map before is the rotation of the sign space, the one
after its transpose, which cancel. Maps fitted by ridge regression are worse: they reconstruct better what the sample has
much of, but angles are no longer kept (decision 20).

The symmetric distance compares what two codes stand for. Pure.
"""

import msgspec
import numpy as np
import numpy.typing as npt
from numkong import cdist

from kintsugi.ann.binary import Bits
from kintsugi.ann.elements import F32Matrix, F32Vector, unit
from kintsugi.ann.sign_space import SignSpace, signs_of
from kintsugi.ann.spec import MAX_BITS, MIN_BITS
from kintsugi.metrics import Metric

_NUMBERS = np.dtype(np.float16)
_NUMBERS_BYTES = 2 * _NUMBERS.itemsize


class Planes(msgspec.Struct, frozen=True, eq=False):
    """The codes of n vectors: n x u x bytes of bits, and for each vector |v| / |b| and |v|^2."""

    bits: Bits
    per_length: F32Vector
    square: F32Vector


class Recurrent(msgspec.Struct, frozen=True, eq=False, tag="recurrent"):
    """`bits` per element, the graph's included."""

    space: SignSpace
    bits: int

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise ValueError(f"bits is {self.bits}, must be {MIN_BITS} to {MAX_BITS}")

    @property
    def usearch_dtype(self) -> str:
        return "b1"

    @property
    def dimension(self) -> int:
        return self.space.dimension

    @property
    def plane_bytes(self) -> int:
        return self.space.dimension // 8

    @property
    def extra_bytes(self) -> int:
        """Of a row's extra codes."""
        return (self.bits - 1) * self.plane_bytes + _NUMBERS_BYTES

    @property
    def code_bytes(self) -> int:
        return self.plane_bytes + self.extra_bytes

    def usearch_metric(self, _metric: Metric) -> str:
        return "hamming"

    def codes(self, elements: F32Matrix) -> Bits:
        return np.packbits(self.space.turn(elements) > 0, axis=1)

    def query_codes(self, _metric: Metric, elements: F32Matrix) -> Bits:
        return np.packbits(self.space.turn_queries(elements) > 0, axis=1)

    def extra_codes(self, elements: F32Matrix) -> Bits:
        """N x extra_bytes: the planes behind the graph's, and the numbers."""
        planes = self._planes(self.space.turn(elements))
        numbers = np.stack([planes.per_length, planes.square], axis=1).astype(_NUMBERS)
        return np.concatenate([planes.bits[:, 1:].reshape(len(elements), -1), numbers.view(np.uint8)], axis=1)

    def planes_of_queries(self, elements: F32Matrix) -> Planes:
        return self._planes(self.space.turn_queries(elements))

    def assembled(self, graph_codes: Bits, extra_codes: Bits) -> Planes:
        """The planes of rows, from the graph's codes of them and their extra codes."""
        end = (self.bits - 1) * self.plane_bytes
        rest = extra_codes[:, :end].reshape(len(extra_codes), self.bits - 1, self.plane_bytes)
        numbers = np.ascontiguousarray(extra_codes[:, end:]).view(_NUMBERS).astype(np.float32)
        return Planes(np.concatenate([graph_codes[:, np.newaxis], rest], axis=1), numbers[:, 0], numbers[:, 1])

    def nearness(self, queries: Planes, query: int, rows: Planes, first: int, end: int) -> npt.NDArray[np.float64]:
        """How near what the codes of rows[first:end] stand for is to that of a query: minus the squared distance, but for
        the query's own square."""
        if end == first:
            return np.empty(0)
        weights = np.ldexp(1.0, -np.arange(self.bits))
        flat = rows.bits[first:end].reshape(-1, self.plane_bytes)
        differing = np.asarray(cdist(queries.bits[query], flat, "hamming", dtype="uint1"))
        products = self.dimension - 2.0 * differing.reshape(self.bits, end - first, self.bits)
        inner = np.einsum("s,snt,t->n", weights, products, weights)
        both = 2.0 * queries.per_length[query] * rows.per_length[first:end]
        return np.asarray(inner * both - rows.square[first:end], dtype=np.float64)

    def decoded(self, planes: Planes) -> F32Matrix:
        """What codes stand for, in the sign space."""
        weights = np.asarray(np.ldexp(1.0, -np.arange(self.bits)), dtype=np.float32)
        levels = np.einsum("nsd,s->nd", signs_of(np.unpackbits(planes.bits, axis=2)), weights)
        return np.asarray(levels * planes.per_length[:, np.newaxis], dtype=np.float32)

    def errors(self, elements: F32Matrix) -> F32Vector:
        return self.space.errors(elements)

    def _planes(self, turned: F32Matrix) -> Planes:
        directions = unit(turned)
        levels = signs_of(turned)
        planes = [np.packbits(levels > 0, axis=1)]
        for plane in range(1, self.bits):
            signs = signs_of(directions - unit(levels))
            levels += signs * np.float32(2.0**-plane)
            planes.append(np.packbits(signs > 0, axis=1))
        squares = np.einsum("ij,ij->i", turned, turned, dtype=np.float64)
        of_levels = np.einsum("ij,ij->i", levels, levels, dtype=np.float64)
        per_length = np.sqrt(squares / np.maximum(of_levels, 1.0))
        return Planes(np.stack(planes, axis=1), per_length.astype(np.float32), squares.astype(np.float32))
