"""What a projection is: a fixed function from the vectors of one model to the space of another.

Every projection normalises what goes in and what comes out when the target's metric is cosine, so that a caller may
give vectors of any length. Applying one is a matrix product or two: no state, any thread. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import FloatArray, Metric

F32Matrix = npt.NDArray[np.float32]


class Kind(StrEnum):
    """How a projection was learned, the simplest first: among equally good ones the first is taken."""

    IDENTITY = "identity"
    DRIFT = "drift"
    PROCRUSTES = "procrustes"
    RIDGE = "ridge"
    ADJOINT = "adjoint"
    LOW_RANK = "low-rank"
    RELATIVE = "relative"
    MLP = "mlp"
    CHAIN = "chain"


class Projection(Protocol):
    """A map from `source_dimension` to `target_dimension`."""

    @property
    def kind(self) -> Kind: ...

    @property
    def metric(self) -> Metric: ...

    @property
    def source_dimension(self) -> int: ...

    @property
    def target_dimension(self) -> int: ...

    def apply(self, vectors: FloatArray) -> F32Matrix:
        """Maps n x source_dimension to n x target_dimension. Raises ValueError when the dimension is another."""
        ...


def unit(vectors: FloatArray) -> F32Matrix:
    """The rows at unit length; zero rows stay."""
    elements = np.asarray(vectors, dtype=np.float32)
    # In float64, since the squares of large f32 elements overflow.
    lengths = np.sqrt(np.einsum("ij,ij->i", elements, elements, dtype=np.float64))
    lengths[lengths == 0.0] = 1.0
    return np.asarray(elements / lengths[:, np.newaxis], dtype=np.float32)


def prepared(metric: Metric, vectors: FloatArray) -> F32Matrix:
    """The elements that maps are fitted on and applied to: of unit length for cosine, as they are otherwise."""
    return unit(vectors) if metric is Metric.COSINE else np.ascontiguousarray(vectors, dtype=np.float32)


def checked(vectors: FloatArray, dimension: int) -> FloatArray:
    """The vectors, if they are n x dimension."""
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"vectors have shape {vectors.shape}, must be n x {dimension}")
    return vectors


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """y = x W + b. Every linear kind, once fitted. `weights` is source x target, `bias` has the target's dimension."""

    kind: Kind
    metric: Metric
    weights: F32Matrix
    bias: npt.NDArray[np.float32]

    @property
    def source_dimension(self) -> int:
        return int(self.weights.shape[0])

    @property
    def target_dimension(self) -> int:
        return int(self.weights.shape[1])

    def apply(self, vectors: FloatArray) -> F32Matrix:
        inputs = prepared(self.metric, checked(vectors, self.source_dimension))
        return prepared(self.metric, inputs @ self.weights + self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class ResidualMlp:
    """y = x W + b + gelu(x H + c) O: an affine map, and what one hidden layer adds to it."""

    metric: Metric
    weights: F32Matrix
    bias: npt.NDArray[np.float32]
    hidden: F32Matrix
    hidden_bias: npt.NDArray[np.float32]
    output: F32Matrix

    @property
    def kind(self) -> Kind:
        return Kind.MLP

    @property
    def source_dimension(self) -> int:
        return int(self.weights.shape[0])

    @property
    def target_dimension(self) -> int:
        return int(self.weights.shape[1])

    def apply(self, vectors: FloatArray) -> F32Matrix:
        inputs = prepared(self.metric, checked(vectors, self.source_dimension))
        activated = gelu(inputs @ self.hidden + self.hidden_bias)
        return prepared(self.metric, inputs @ self.weights + self.bias + activated @ self.output)


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Projections one after the other, for vectors that are several upgrades old."""

    links: Sequence[Projection]

    def __post_init__(self) -> None:
        if not self.links:
            raise ValueError("a chain has 0 links, must have at least 1")
        for first, second in zip(self.links, self.links[1:], strict=False):
            if first.target_dimension != second.source_dimension:
                raise ValueError(
                    f"a {first.kind} projection to {first.target_dimension} dimensions cannot be followed by a "
                    f"{second.kind} one from {second.source_dimension}"
                )

    @property
    def kind(self) -> Kind:
        return Kind.CHAIN

    @property
    def metric(self) -> Metric:
        return self.links[-1].metric

    @property
    def source_dimension(self) -> int:
        return self.links[0].source_dimension

    @property
    def target_dimension(self) -> int:
        return self.links[-1].target_dimension

    def apply(self, vectors: FloatArray) -> F32Matrix:
        mapped = np.asarray(vectors, dtype=np.float32)
        for link in self.links:
            mapped = link.apply(mapped)
        return mapped


def gelu(values: F32Matrix) -> F32Matrix:
    """The tanh approximation of the Gaussian error linear unit (Hendrycks and Gimpel, 2016)."""
    inner = np.float32(0.7978845608) * (values + np.float32(0.044715) * values * values * values)
    return np.asarray(np.float32(0.5) * values * (np.float32(1.0) + np.tanh(inner)), dtype=np.float32)
