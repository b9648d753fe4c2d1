"""Rotations: they spread what few elements carry over all of them, so that the sign of each tells equally much. Pure.

Up to DENSE_DIMENSION a rotation is a matrix, random or learned. Above, where a matrix would take many megabytes, it is
rounds of three cheap steps: flip some signs, shuffle, apply a cosine transform to blocks. Both are written down in full
rather than as a seed, so that they do not depend on a library's version.
"""

from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.ann.elements import F32Matrix

DENSE_DIMENSION = 1024
# Two rounds mix blocks of blocks; the third leaves no trace of which element was where.
_ROUNDS = 3
_BLOCK = 128

F16Array = npt.NDArray[np.float16]
Order = npt.NDArray[np.uint16]
Signs = npt.NDArray[np.int8]


class DenseRotation(msgspec.Struct, frozen=True, dict=True, eq=False, tag="dense"):
    """Rows times a square matrix. f16 keeps angles to 0.001, far finer than signs tell them."""

    matrix: F16Array

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1] or self.matrix.dtype != np.float16:
            raise ValueError(f"rotation is {self.matrix.dtype} {self.matrix.shape}, expected a square of float16")

    @property
    def dimension(self) -> int:
        return len(self.matrix)

    def turn(self, elements: F32Matrix) -> F32Matrix:
        return elements @ self._factors

    @cached_property
    def _factors(self) -> F32Matrix:
        return self.matrix.astype(np.float32)


class BlockRotation(msgspec.Struct, frozen=True, dict=True, eq=False, tag="blocks"):
    """One row of `signs` and `orders` per round."""

    signs: Signs
    orders: Order

    def __post_init__(self) -> None:
        if self.signs.ndim != 2 or self.signs.shape != self.orders.shape or self.signs.shape[1] < 1:
            raise ValueError(f"rotation has signs {self.signs.shape} and orders {self.orders.shape}, expected the same")
        if not (np.sort(self.orders, axis=1) == np.arange(self.dimension)).all():
            raise ValueError("an order of a rotation does not have every element once")

    @property
    def dimension(self) -> int:
        return int(self.signs.shape[1])

    def turn(self, elements: F32Matrix) -> F32Matrix:
        turned = elements
        for signs, order in zip(self.signs, self.orders, strict=True):
            turned = self._mix(np.take(turned * signs, order, axis=1))
        return turned

    def _mix(self, elements: F32Matrix) -> F32Matrix:
        whole = self.dimension // _BLOCK * _BLOCK
        mixed = np.empty_like(elements)
        blocks = elements[:, :whole].reshape(-1, _BLOCK)
        mixed[:, :whole] = (blocks @ self._transforms[0]).reshape(len(elements), whole)
        mixed[:, whole:] = elements[:, whole:] @ self._transforms[1]
        return mixed

    @cached_property
    def _transforms(self) -> tuple[F32Matrix, F32Matrix]:
        return _cosine_transform(_BLOCK), _cosine_transform(self.dimension % _BLOCK)


Rotation = DenseRotation | BlockRotation


def random_rotation(dimension: int, random: np.random.Generator) -> Rotation:
    if dimension > DENSE_DIMENSION:
        signs = random.integers(0, 2, (_ROUNDS, dimension)).astype(np.int8) * np.int8(2) - np.int8(1)
        orders = np.stack([random.permutation(dimension) for _ in range(_ROUNDS)]).astype(np.uint16)
        return BlockRotation(signs, orders)
    orthogonal, triangle = np.linalg.qr(random.standard_normal((dimension, dimension)))
    # Without the signs the rotations would not be uniformly distributed.
    return DenseRotation((orthogonal * np.sign(np.diag(triangle))).astype(np.float16))


def learned_rotation(elements: F32Matrix, start: Rotation, rounds: int) -> DenseRotation:
    """Turns the elements so that they come near the corners of a cube (iterative quantisation): by turns the signs nearest
    to them, and the rotation that brings them nearest to those."""
    turned = start.turn(np.eye(start.dimension, dtype=np.float32))
    for _ in range(rounds):
        corners = np.where(elements @ turned > 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd(elements.T @ corners)
        turned = np.asarray(left @ right, dtype=np.float32)
    return DenseRotation(turned.astype(np.float16))


def _cosine_transform(size: int) -> F32Matrix:
    """The orthonormal one of the second kind."""
    places = np.arange(size)
    angles = np.pi / max(1, size) * np.outer(places + 0.5, places)
    transform = np.sqrt(2.0 / max(1, size)) * np.cos(angles)
    transform[:, :1] /= np.sqrt(2.0)
    return np.asarray(transform, dtype=np.float32)
