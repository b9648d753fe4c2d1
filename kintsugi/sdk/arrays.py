"""Vectors and queries as callers give them: any array, of one model or by model, to matrices that the wire can carry."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from kintsugi import columns
from kintsugi.errors import InvalidArgument
from kintsugi.sdk.bounds import same_length
from kintsugi.sdk.types import FloatArray
from kintsugi.v1 import types_pb2

Vectors: TypeAlias = npt.ArrayLike | Mapping[str, npt.ArrayLike]


def by_model(vectors: Vectors | None, model: str, count: int) -> dict[str, FloatArray]:
    """The vectors of each model as `count` x dimension matrices of f32 or f16."""
    if vectors is None:
        return {}
    if isinstance(vectors, Mapping):
        if model:
            raise InvalidArgument("model", f"is {model!r}", "must be left out when vectors are given by model")
        named = {name: as_matrix(matrix, f"vectors[{name!r}]") for name, matrix in vectors.items()}
    else:
        named = {model: as_matrix(vectors, "vectors")}
    for name, matrix in named.items():
        same_length(f"vectors[{name!r}]" if name else "vectors", len(matrix), count)
    return named


def query_vectors(value: Vectors, model: str) -> dict[str, FloatArray]:
    """One query by model, as vectors of f32."""
    if not isinstance(value, Mapping):
        return {model: as_vector(value, "vector")}
    _check_named(value, model, "vector")
    return {name: as_vector(vector, f"vector[{name!r}]") for name, vector in value.items()}


def query_matrices(value: Vectors, model: str) -> dict[str, FloatArray]:
    """Queries by model, as many of each."""
    if not isinstance(value, Mapping):
        return {model: as_matrix(value, "vectors")}
    _check_named(value, model, "vectors")
    named = {name: as_matrix(matrix, f"vectors[{name!r}]") for name, matrix in value.items()}
    for name, matrix in named.items():
        if len(matrix) != len(first := next(iter(named.values()))):
            raise InvalidArgument(
                f"vectors[{name!r}]", f"has {len(matrix)} rows", f"must have {len(first)}, as the others"
            )
    return named


def apart(models: Sequence[tuple[str, int]], joined: FloatArray) -> dict[str, FloatArray]:
    """What stands side by side along the last axis, by model; `models` are their names and dimensions."""
    ends = np.cumsum([dimension for _, dimension in models])[:-1]
    return dict(zip((name for name, _ in models), np.split(joined, ends, axis=-1), strict=True))


def _check_named(value: Mapping[str, object], model: str, field: str) -> None:
    if model:
        raise InvalidArgument("model", f"is {model!r}", f"must be left out when {field} is given by model")
    if not value:
        raise InvalidArgument(field, "has no entry", "must have at least 1")


def pack_model_vectors(named: Mapping[str, FloatArray]) -> list[types_pb2.ModelVectors]:
    return [
        types_pb2.ModelVectors(model=name, block=columns.pack_vectors(matrix))
        for name, matrix in named.items()
        if len(matrix)
    ]


def as_matrix(value: npt.ArrayLike, field: str) -> FloatArray:
    """The value as a matrix, f16 kept, every other number format converted to f32 (a memory map stays one)."""
    matrix = _as_floats(value, field)
    if matrix.ndim != 2:
        raise InvalidArgument(field, f"has {matrix.ndim} axes", "must have 2: items x dimension")
    return matrix


def as_vector(value: npt.ArrayLike, field: str) -> FloatArray:
    """The value as one f32 vector."""
    vector = _as_floats(value, field)
    if vector.ndim != 1:
        raise InvalidArgument(field, f"has {vector.ndim} axes", "must have 1: dimension")
    return vector.astype("<f4", copy=False)


def _as_floats(value: npt.ArrayLike, field: str) -> FloatArray:
    try:
        array = np.asanyarray(value)
        if array.dtype.kind not in "fiub":
            raise InvalidArgument(field, f"has elements of type {array.dtype}", "must be numbers")
        if array.dtype != np.float16:
            array = array.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(field, f"is not an array of numbers: {error}") from error
    return cast("FloatArray", array)
