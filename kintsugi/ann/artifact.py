"""Writes an encoding down, matrices included, and reads it back.

Layout: magic, version, the SHA-256 of all that follows, the length of the description, the description as JSON, in which
an array is a reference; then the arrays' bytes in order. Guarantees: what is unpacked encodes exactly as what was packed;
bytes that were damaged, cut, or are of another collection are a ValueError. Pure.
"""

import hashlib
import struct
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.ann.encoding import Encoding
from kintsugi.metrics import Metric

MAX_ARTIFACT_BYTES = 32 * 2**20
FORMAT_VERSION = 1

_MAGIC = b"KINTENCD"
# Magic, version, checksum of the rest; behind it the length of the description.
_HEADER = struct.Struct("<8sI32s")
_LENGTH = struct.Struct("<I")
_DTYPES = ("<f4", "<f2", "<u2", "|i1")


class _ArrayReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an array is among the bytes behind the description."""

    dtype: str
    shape: list[int]
    offset: int


# Made once, and before any thread needs it: msgspec crashes when two threads are the first to decode the same type. The
# hook that resolves arrays differs from call to call, the knowledge of the types does not.
_KNOWN_TYPES = (msgspec.json.Decoder(Encoding), msgspec.json.Decoder(_ArrayReference))


def pack(encoding: Encoding) -> bytes:
    """ValueError when it takes more than MAX_ARTIFACT_BYTES."""
    arrays: list[bytes] = []

    def refer(value: object) -> _ArrayReference:
        assert isinstance(value, np.ndarray)
        assert value.dtype.str in _DTYPES
        offset = sum(map(len, arrays))
        arrays.append(np.ascontiguousarray(value).tobytes())
        return _ArrayReference(value.dtype.str, list(value.shape), offset)

    description = msgspec.json.encode(encoding, enc_hook=refer)
    body = b"".join([_LENGTH.pack(len(description)), description, *arrays])
    packed = _HEADER.pack(_MAGIC, FORMAT_VERSION, hashlib.sha256(body).digest()) + body
    if len(packed) > MAX_ARTIFACT_BYTES:
        raise ValueError(f"encoding {encoding.name} takes {len(packed)} bytes, must be at most {MAX_ARTIFACT_BYTES}")
    return packed


def unpack(metric: Metric, dimension: int, data: bytes) -> Encoding:
    """The encoding that was packed; it must be of this metric and dimension."""
    if not _HEADER.size + _LENGTH.size <= len(data) <= MAX_ARTIFACT_BYTES:
        raise ValueError(f"encoding has {len(data)} bytes, at most {MAX_ARTIFACT_BYTES} can be right")
    magic, version, checksum = _HEADER.unpack_from(data)
    body = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC or version != FORMAT_VERSION:
        raise ValueError(f"encoding begins with {magic!r} version {version}, expected {_MAGIC!r} {FORMAT_VERSION}")
    if hashlib.sha256(body).digest() != checksum:
        raise ValueError("encoding does not match its checksum")
    (length,) = _LENGTH.unpack_from(body)
    description, arrays = body[_LENGTH.size : _LENGTH.size + length], body[_LENGTH.size + length :]

    def resolve(_kind: type, value: object) -> npt.NDArray[Any]:
        reference = msgspec.convert(value, _ArrayReference)
        return _array(reference, arrays)

    try:
        encoding = msgspec.json.decode(description, type=Encoding, dec_hook=resolve)
    except (msgspec.MsgspecError, TypeError) as error:
        raise ValueError(f"encoding cannot be read: {error}") from error
    if (encoding.metric, encoding.dimension) != (metric, dimension):
        raise ValueError(
            f"encoding is for {encoding.metric} of dimension {encoding.dimension}, expected {metric} of {dimension}"
        )
    return encoding


def _array(reference: _ArrayReference, data: memoryview) -> npt.NDArray[Any]:
    """A copy: the file may be large, and its bytes are not aligned."""
    if reference.dtype not in _DTYPES or any(size < 0 for size in reference.shape):
        raise ValueError(f"array is {reference.dtype} {reference.shape}, which no encoding has")
    dtype = np.dtype(reference.dtype)
    count = int(np.prod(reference.shape, dtype=np.int64))
    piece = data[reference.offset : reference.offset + count * dtype.itemsize]
    array = np.frombuffer(bytes(piece), dtype=dtype)
    return array.reshape(reference.shape)
