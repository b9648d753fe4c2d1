"""Fewer elements that carry most of what many did: a prefix, or principal components. Pure.

For cosine what is left is normalised anew by whoever reduced it. The components are those of the vectors as they are, not
of their differences from the mean: angles and products are seen from the origin, and with the mean in it, the first
component holds what all vectors share. Under l2 the encoding has subtracted the mean already.
"""

from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.ann.elements import F32Matrix


class Prefix(msgspec.Struct, frozen=True, tag="prefix"):
    """The first elements, of a model that was trained to put most of the meaning there."""

    dimension: int

    def reduce(self, elements: F32Matrix) -> F32Matrix:
        return np.ascontiguousarray(elements[:, : self.dimension])


class Components(msgspec.Struct, frozen=True, dict=True, eq=False, tag="components"):
    """The components along the columns of `directions`, the most important first."""

    directions: npt.NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.directions.ndim != 2 or self.directions.dtype != np.float16:
            raise ValueError(f"components are {self.directions.dtype} {self.directions.shape}, expected f16 of 2 axes")

    @property
    def dimension(self) -> int:
        return int(self.directions.shape[1])

    def reduce(self, elements: F32Matrix) -> F32Matrix:
        return elements @ self._factors

    @cached_property
    def _factors(self) -> F32Matrix:
        return self.directions.astype(np.float32)


Reduction = Prefix | Components


def fit_components(elements: F32Matrix, count: int, random: np.random.Generator) -> Components:
    """The `count` directions in which the elements are longest. Fewer vectors than that leave the rest to chance."""
    vectors, dimension = elements.shape
    # Long vectors would else decide alone, or overflow.
    scale = float(np.abs(elements).max(initial=0.0)) or 1.0
    scaled = elements / np.float32(scale)
    if vectors >= dimension:
        _, directions = np.linalg.eigh((scaled.T @ scaled).astype(np.float64))
        found = directions[:, ::-1]
    else:
        _, weights = np.linalg.eigh((scaled @ scaled.T).astype(np.float64))
        found = scaled.T @ weights[:, ::-1]
    if found.shape[1] < count or vectors < dimension:
        chance = random.standard_normal((dimension, max(0, count - found.shape[1])))
        found, _ = np.linalg.qr(np.concatenate([found[:, :count], chance], axis=1))
    return Components(found[:, :count].astype(np.float16))
