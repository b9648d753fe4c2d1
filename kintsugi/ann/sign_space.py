"""The space in which signs are taken: nearness becomes the angle between directions, which signs tell, and all directions
matter alike. Pure.

Outline: 1. lift vectors of different lengths onto a sphere, by one more element, so that the largest inner product is the
smallest angle; 2. subtract the centre, since vectors that all point one way share most of their signs; 3. pad to whole
bytes; 4. rotate. On a sphere nearness by inner product, by angle and by distance are one, so subtracting the centre
from both sides changes no order.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.ann.elements import F32Matrix, F32Vector, unit
from kintsugi.ann.rotation import Rotation, learned_rotation, random_rotation
from kintsugi.metrics import Metric

# The held-out search that chooses the rotation.
_HELD_OUT = 400
_SEARCHED = 8000
_HITS = 10
_TAKEN = 50
# A learned rotation is taken when it finds clearly more: it may have learned the sample.
_WORTH = 0.005
_LEARNING_ROUNDS = 8
_LEARNED_DIMENSION = 768
_LEARNING_VECTORS_PER_DIMENSION = 4


class SignSpace(msgspec.Struct, frozen=True, eq=False):
    """`radius`: the length that is lifted by nothing, above that of nearly all vectors; 0 where all have length 1.
    `spread`: the usual distance from the centre."""

    radius: float
    spread: float
    centre: F32Vector
    rotation: Rotation

    def __post_init__(self) -> None:
        if self.centre.ndim != 1 or not 0.0 <= self.radius < np.inf or not 0.0 < self.spread < np.inf:
            raise ValueError(
                f"sign space has radius {self.radius}, spread {self.spread} and a centre {self.centre.shape}"
            )
        if self.rotation.dimension != whole_bytes(len(self.centre)):
            raise ValueError(f"centre has {len(self.centre)} elements, rotation {self.rotation.dimension}")

    @property
    def dimension(self) -> int:
        """A multiple of 8."""
        return self.rotation.dimension

    def turn(self, elements: F32Matrix) -> F32Matrix:
        return self.rotation.turn(_padded(_lifted(elements, self.radius) - self.centre, self.dimension))

    def errors(self, elements: F32Matrix) -> F32Vector:
        """How far the distance from the centre is from the usual one, in parts of that: data that has moved away is further
        out, data that has drawn together elsewhere is at another distance."""
        turned = self.turn(elements)
        distances = np.sqrt(np.einsum("ij,ij->i", turned, turned, dtype=np.float64))
        return np.asarray(np.abs(distances / self.spread - 1.0), dtype=np.float32)

    def turn_queries(self, elements: F32Matrix) -> F32Matrix:
        return self.rotation.turn(_padded(_lifted_queries(elements, self.radius) - self.centre, self.dimension))


def signs_of(turned: npt.NDArray[Any]) -> F32Matrix:
    """1 where it is above zero, else -1."""
    return np.where(turned > 0, np.float32(1), np.float32(-1))


def whole_bytes(bits: int) -> int:
    return -(-bits // 8) * 8


def fit_sign_space(metric: Metric, elements: F32Matrix, random: np.random.Generator) -> SignSpace:
    """Chooses between a random rotation and a learned one by the hits that signs find among the sample."""
    radius = 0.0
    if metric is Metric.DOT:
        lengths = np.sqrt(np.einsum("ij,ij->i", elements, elements, dtype=np.float64))
        radius = min(float(lengths.max(initial=0.0)), float(np.finfo(np.float32).max)) or 1.0
    lifted = _lifted(elements, radius)
    centre = _mean(lifted)
    spread = float(np.mean(np.linalg.norm(lifted - centre, axis=1))) if len(lifted) else 0.0
    dimension = whole_bytes(lifted.shape[1])
    plain = SignSpace(radius, spread or 1.0, centre, random_rotation(dimension, random))
    held_out = min(_HELD_OUT, len(elements) // 10)
    order = random.permutation(len(elements))
    queries, rest = elements[order[:held_out]], elements[order[held_out:]]
    if dimension > _LEARNED_DIMENSION or len(rest) < max(_LEARNING_VECTORS_PER_DIMENSION * dimension, 10 * _TAKEN):
        return plain
    directions = unit(_padded(_lifted(rest, radius) - centre, dimension))
    learned = SignSpace(radius, spread or 1.0, centre, learned_rotation(directions, plain.rotation, _LEARNING_ROUNDS))
    searched = rest[:_SEARCHED]
    better = _recall(learned, queries, searched) - _recall(plain, queries, searched)
    return learned if better > _WORTH else plain


def _mean(elements: F32Matrix) -> F32Vector:
    total = np.sum(elements, axis=0, dtype=np.float64)
    return np.asarray(total / max(1, len(elements)), dtype=np.float32)


def _recall(space: SignSpace, queries: F32Matrix, searched: F32Matrix) -> float:
    """The part of the true best that is among the nearest by signs."""
    agreement = signs_of(space.turn_queries(queries)) @ signs_of(space.turn(searched)).T
    truth = np.argpartition(-(queries @ searched.T), _HITS, axis=1)[:, :_HITS]
    taken = np.partition(agreement, -_TAKEN, axis=1)[:, -_TAKEN]
    return float(np.mean(np.take_along_axis(agreement, truth, axis=1) >= taken[:, np.newaxis]))


def _lifted(elements: F32Matrix, radius: float) -> F32Matrix:
    if not radius:
        return elements
    scaled = np.asarray(elements * np.float64(1.0 / radius), dtype=np.float32)
    squares = np.einsum("ij,ij->i", scaled, scaled, dtype=np.float64)
    height = np.sqrt(np.maximum(0.0, 1.0 - squares)).astype(np.float32)
    return np.concatenate([scaled, height[:, np.newaxis]], axis=1)


def _lifted_queries(elements: F32Matrix, radius: float) -> F32Matrix:
    """Whose length changes no order, so that they lie on the sphere as they are."""
    directions = unit(elements)
    return _padded(directions, directions.shape[1] + 1) if radius else directions


def _padded(elements: F32Matrix, dimension: int) -> F32Matrix:
    missing = dimension - elements.shape[1]
    return np.pad(elements, ((0, 0), (0, missing))) if missing else elements
