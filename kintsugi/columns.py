"""Ids, vectors and numbers in the column messages of the protos, to and from Python and numpy.

Packing trusts its caller. Unpacking trusts nobody: whatever a message holds, the result is within the bounds that the
proto comments promise, or InvalidArgument names the path of the field, the value found and the bound.
Shared by SDK, coordinator and shard. Knows nothing of RPC or of collections.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kintsugi import ids, limits
from kintsugi.errors import InvalidArgument
from kintsugi.ids import DocId
from kintsugi.metrics import FloatArray, Metric
from kintsugi.v1 import types_pb2

F64Array: TypeAlias = npt.NDArray[np.float64]
U64Array: TypeAlias = npt.NDArray[np.uint64]

_INTEGER_KIND = 0
_TEXT_KIND = 1
_INTEGER_BYTES = 8
_INTEGER_TYPE = ids.encode(0)[:1]
_TEXT_TYPE = ids.encode("x")[:1]
_DTYPES: dict[int, np.dtype[np.floating]] = {
    types_pb2.ELEMENT_TYPE_UNSPECIFIED: np.dtype("<f4"),
    types_pb2.ELEMENT_TYPE_F32: np.dtype("<f4"),
    types_pb2.ELEMENT_TYPE_F16: np.dtype("<f2"),
}


# --- One id ---------------------------------------------------------------------------------------------------------


def pack_id(doc_id: DocId) -> types_pb2.DocumentId:
    if isinstance(doc_id, int):
        return types_pb2.DocumentId(integer=doc_id)
    return types_pb2.DocumentId(text=doc_id)


def unpack_id(message: types_pb2.DocumentId, field: str) -> DocId:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidArgument(field, "is not set", "must be an integer or a text")
    return ids.check(message.integer if kind == "integer" else message.text, field)


# --- Many ids -------------------------------------------------------------------------------------------------------


def pack_ids(doc_ids: Sequence[DocId]) -> types_pb2.IdColumn:
    return pack_encoded([ids.encode(doc_id) for doc_id in doc_ids])


def pack_encoded(encoded: Iterable[bytes]) -> types_pb2.IdColumn:
    """Packs ids that stand in their ordered byte encoding, as storage holds them."""
    kinds = bytearray()
    integers: list[bytes] = []
    texts: list[str] = []
    for one in encoded:
        if one[:1] == _INTEGER_TYPE:
            kinds.append(_INTEGER_KIND)
            integers.append(one[:0:-1])  # big-endian behind the type byte, reversed
        else:
            kinds.append(_TEXT_KIND)
            texts.append(one[1:].decode())
    mixed = bool(integers) and bool(texts)
    return types_pb2.IdColumn(integers=b"".join(integers), texts=texts, kinds=bytes(kinds) if mixed else b"")


def id_count(column: types_pb2.IdColumn) -> int:
    """The number of ids that a well-formed column holds."""
    return len(column.integers) // _INTEGER_BYTES + len(column.texts)


def unpack_ids(column: types_pb2.IdColumn, field: str) -> list[DocId]:
    integers: list[int] = _integers(column, field).tolist()
    texts = [_checked_text(text, f"{field}.texts[{i}]") for i, text in enumerate(column.texts)]
    if not _is_mixed(column, field):
        return [*integers, *texts]
    next_integer, next_text = iter(integers), iter(texts)
    return [next(next_text) if kind == _TEXT_KIND else next(next_integer) for kind in column.kinds]


def unpack_encoded(column: types_pb2.IdColumn, field: str) -> list[bytes]:
    """Unpacks ids into their ordered byte encoding, without decoding them in between."""
    big_endian = _integers(column, field).astype(">u8").tobytes()
    integers = [
        _INTEGER_TYPE + big_endian[at : at + _INTEGER_BYTES] for at in range(0, len(big_endian), _INTEGER_BYTES)
    ]
    texts = [_TEXT_TYPE + _checked_text(text, f"{field}.texts[{i}]").encode() for i, text in enumerate(column.texts)]
    if not _is_mixed(column, field):
        return [*integers, *texts]
    next_integer, next_text = iter(integers), iter(texts)
    return [next(next_text) if kind == _TEXT_KIND else next(next_integer) for kind in column.kinds]


def _checked_text(text: str, field: str) -> str:
    ids.check(text, field)
    return text


def _integers(column: types_pb2.IdColumn, field: str) -> U64Array:
    return unpack_u64(column.integers, f"{field}.integers")


def _is_mixed(column: types_pb2.IdColumn, field: str) -> bool:
    """Whether `kinds` decides the order. Raises unless it accounts for exactly the ids of the column."""
    integers, texts, kinds = len(column.integers) // _INTEGER_BYTES, len(column.texts), column.kinds
    if not kinds:
        if integers and texts:
            raise InvalidArgument(
                f"{field}.kinds", f"is empty for {integers} integers and {texts} texts", "must have one byte per id"
            )
        return False
    if kinds.count(_INTEGER_KIND) != integers or kinds.count(_TEXT_KIND) != texts or len(kinds) != integers + texts:
        raise InvalidArgument(
            f"{field}.kinds",
            f"has {kinds.count(_INTEGER_KIND)} bytes 0 and {kinds.count(_TEXT_KIND)} bytes 1 of {len(kinds)}",
            f"must name {integers} integers with 0 and {texts} texts with 1",
        )
    return True


# --- Vectors --------------------------------------------------------------------------------------------------------


def pack_vectors(matrix: FloatArray) -> types_pb2.VectorBlock:
    """Packs count x dimension floats: f16 as it is, every other type as f32."""
    half = matrix.dtype == np.float16
    count, dimension = matrix.shape
    return types_pb2.VectorBlock(
        data=np.ascontiguousarray(matrix, dtype="<f2" if half else "<f4").tobytes(),
        count=count,
        dimension=dimension,
        element_type=types_pb2.ELEMENT_TYPE_F16 if half else types_pb2.ELEMENT_TYPE_F32,
    )


def unpack_vectors(block: types_pb2.VectorBlock, field: str, *, dimension: int, max_count: int) -> FloatArray:
    """Unpacks a block into a read-only count x dimension matrix of its own element type, after checking its shape.
    The values are not looked at: see check_values and value_problems."""
    if block.element_type not in _DTYPES:
        raise InvalidArgument(f"{field}.element_type", f"is {block.element_type}", "must be f32 or f16")
    if not 1 <= block.count <= max_count:
        raise InvalidArgument(f"{field}.count", f"is {block.count}", f"must be 1 to {max_count}")
    if block.dimension != dimension:
        raise InvalidArgument(
            f"{field}.dimension", f"is {block.dimension}", f"must be {dimension}, the dimension of the model"
        )
    dtype = _DTYPES[block.element_type]
    expected = block.count * block.dimension * dtype.itemsize
    if len(block.data) != expected:
        raise InvalidArgument(
            f"{field}.data",
            f"has {len(block.data)} bytes",
            f"must have {expected}: {block.count} x {block.dimension} elements of {dtype.itemsize} bytes",
        )
    matrix: FloatArray = np.frombuffer(block.data, dtype=dtype).reshape(block.count, block.dimension)
    return matrix


def value_problems(matrix: FloatArray, metric: Metric) -> list[tuple[int, str, str]]:
    """The rows that cannot be stored or searched, as (row, problem, bound): elements that are not finite, and zero
    vectors under cosine. Empty when all is well."""
    if len(matrix) == 1:
        # Finite and positive only if there is nothing to find; an overflow or underflow merely costs the exact look.
        square = float(np.vdot(matrix[0], matrix[0]))
        if 0 < square < np.inf:
            return []
    # A sum is finite only if all its terms are; likewise.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = bool(np.isfinite(matrix.sum(dtype=np.float64)))
    bad_finite = [] if finite else np.flatnonzero(~np.isfinite(matrix).all(axis=1)).tolist()
    problems = {row: (_first_not_finite(matrix[row]), "must be finite") for row in bad_finite}
    if metric is Metric.COSINE:
        for row in np.flatnonzero(~matrix.any(axis=1)).tolist():
            problems[row] = ("is a zero vector", "must have a direction under cosine")
    return [(row, *problems[row]) for row in sorted(problems)]


def check_values(matrix: FloatArray, metric: Metric, field: str) -> None:
    """Raises InvalidArgument for the first row that value_problems finds, as `field[row]`."""
    for row, problem, bound in value_problems(matrix, metric):
        raise InvalidArgument(f"{field}[{row}]", problem, bound)


def _first_not_finite(vector: FloatArray) -> str:
    element = int(np.flatnonzero(~np.isfinite(vector))[0])
    return f"is {vector[element]} at element {element}"


# --- Numbers --------------------------------------------------------------------------------------------------------


def pack_f64(values: npt.ArrayLike) -> bytes:
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def unpack_f64(data: bytes, field: str) -> F64Array:
    _check_whole(data, field)
    return np.frombuffer(data, dtype="<f8")


def pack_u64(values: npt.ArrayLike) -> bytes:
    return np.ascontiguousarray(values, dtype="<u8").tobytes()


def unpack_u64(data: bytes, field: str) -> U64Array:
    _check_whole(data, field)
    return np.frombuffer(data, dtype="<u8")


def _check_whole(data: bytes, field: str) -> None:
    if len(data) % _INTEGER_BYTES:
        raise InvalidArgument(field, f"has {len(data)} bytes", f"must have a multiple of {_INTEGER_BYTES}")


def check_count(count: int, field: str, *, most: int = limits.MAX_BATCH_ITEMS) -> None:
    """Raises InvalidArgument unless a repeated field has 1 to `most` entries."""
    if not 1 <= count <= most:
        raise InvalidArgument(field, f"has {count} entries", f"must have 1 to {most}")
