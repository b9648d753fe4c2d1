"""Projections as files: content-addressed, versioned, checked before they are believed. Pure.

A file is a header line of JSON (magic, format version, SHA-256 of the rest), then msgpack. Reading checks the digest, every
shape and that every element is finite: a forged or damaged file raises ArtifactInvalid and nothing else.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.limits import MAX_ARTIFACT_BYTES, MAX_ARTIFACT_CHUNK_BYTES
from kintsugi.metrics import Metric
from kintsugi.projections.projection import Affine, Chain, Kind, Projection, ResidualMlp

FORMAT_VERSION = 1

_MAGIC = "kintsugi-projection"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactInvalid(ValueError):
    """Bytes that are no projection of this format, or not as they were written."""


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    magic: str
    format_version: int
    sha256: str


class _Array(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    shape: tuple[int, ...]
    data: bytes


class _Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    metric: Metric
    arrays: dict[str, _Array]


# Made once: msgspec crashes when two threads are the first to decode the same type.
_READ_HEADER = msgspec.json.Decoder(_Header)
_READ_LINKS = msgspec.msgpack.Decoder(tuple[_Link, ...])
_READ_ARRAYS = msgspec.msgpack.Decoder(dict[str, _Array])

_AFFINE = ("weights", "bias")
_MLP = ("weights", "bias", "hidden", "hidden_bias", "output")


def require_room(source_dimension: int, target_dimension: int) -> None:
    """Raises ValueError when between these spaces even a linear map would take more than MAX_ARTIFACT_BYTES."""
    size = np.dtype(np.float32).itemsize * source_dimension * target_dimension
    if size > MAX_ARTIFACT_BYTES:
        raise ValueError(
            f"a linear map from {source_dimension} to {target_dimension} dimensions takes {size} bytes, must take at most "
            f"{MAX_ARTIFACT_BYTES}"
        )


def pack(projection: Projection) -> bytes:
    """Serialises a projection. Raises ValueError above MAX_ARTIFACT_BYTES."""
    what = (
        f"{projection.kind} projection from {projection.source_dimension} to {projection.target_dimension} dimensions"
    )
    return _sealed(_MAGIC, what, msgspec.msgpack.encode(tuple(map(_link, _links(projection)))))


def pack_arrays(magic: str, arrays: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """Serialises named arrays as a file of another kind. Raises ValueError above MAX_ARTIFACT_BYTES."""
    return _sealed(magic, magic, msgspec.msgpack.encode({name: _stored(array) for name, array in arrays.items()}))


def chunks(data: bytes) -> Iterator[bytes]:
    """The bytes of an artifact in pieces that calls and Redis take."""
    for start in range(0, len(data), MAX_ARTIFACT_CHUNK_BYTES):
        yield data[start : start + MAX_ARTIFACT_CHUNK_BYTES]


def digest(packed: bytes) -> str:
    """The name of an artifact: the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(packed).hexdigest()


def is_digest(name: str) -> bool:
    """Whether it has the form of one, and so can be part of a key or a path."""
    return _DIGEST.fullmatch(name) is not None


def unpack(packed: bytes) -> Projection:
    """Inverts `pack`. Raises ArtifactInvalid."""
    body = _opened(_MAGIC, packed)
    try:
        links = [_projection(link) for link in _READ_LINKS.decode(body)]
        return links[0] if len(links) == 1 else Chain(tuple(links))
    except (msgspec.DecodeError, ValueError) as error:
        raise ArtifactInvalid(f"cannot be read: {error}") from error


def unpack_arrays(magic: str, packed: bytes, axes: Mapping[str, int]) -> dict[str, npt.NDArray[np.float32]]:
    """Inverts `pack_arrays` of exactly these names, with so many axes each. Raises ArtifactInvalid."""
    body = _opened(magic, packed)
    try:
        stored = _READ_ARRAYS.decode(body)
        if set(stored) != set(axes):
            raise ArtifactInvalid(f"has arrays {sorted(stored)}, must have {sorted(axes)}")
        arrays = {name: _array(name, one) for name, one in stored.items()}
        for name, count in axes.items():
            _shape(arrays, name, count)
    except (msgspec.DecodeError, ValueError) as error:
        raise ArtifactInvalid(f"cannot be read: {error}") from error
    return arrays


def _sealed(magic: str, what: str, body: bytes) -> bytes:
    header = _Header(magic, FORMAT_VERSION, hashlib.sha256(body).hexdigest())
    packed = msgspec.json.encode(header) + b"\n" + body
    if len(packed) > MAX_ARTIFACT_BYTES:
        raise ValueError(f"the {what} takes {len(packed)} bytes, must take at most {MAX_ARTIFACT_BYTES}")
    return packed


def _opened(magic: str, packed: bytes) -> memoryview:
    """What `_sealed` sealed, after the header was checked."""
    if len(packed) > MAX_ARTIFACT_BYTES:
        raise ArtifactInvalid(f"has {len(packed)} bytes, must have at most {MAX_ARTIFACT_BYTES}")
    head = packed[: packed.find(b"\n")]
    # No copy: artifacts of large models are large.
    body = memoryview(packed)[len(head) + 1 :]
    try:
        header = _READ_HEADER.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactInvalid(f"is no {magic}: {error}") from error
    if header.magic != magic or header.format_version != FORMAT_VERSION:
        found = f"{header.magic!r} version {header.format_version}"
        raise ArtifactInvalid(f"is {found}, must be {magic!r} version {FORMAT_VERSION}")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise ArtifactInvalid("does not match its checksum")
    return body


def _links(projection: Projection) -> Sequence[Projection]:
    if not isinstance(projection, Chain):
        return [projection]
    return [simple for link in projection.links for simple in _links(link)]


def _link(projection: Projection) -> _Link:
    names = _MLP if isinstance(projection, ResidualMlp) else _AFFINE
    arrays = {name: getattr(projection, name) for name in names}
    return _Link(
        projection.kind,
        projection.metric,
        {name: _stored(array) for name, array in arrays.items()},
    )


def _projection(link: _Link) -> Projection:
    kind = Kind(link.kind)
    if kind is Kind.CHAIN:
        raise ValueError("a chain holds a chain")
    wanted = _MLP if kind is Kind.MLP else _AFFINE
    if set(link.arrays) != set(wanted):
        raise ValueError(f"a {kind} projection has arrays {sorted(link.arrays)}, must have {sorted(wanted)}")
    arrays = {name: _array(name, link.arrays[name]) for name in wanted}
    source, target = _shape(arrays, "weights", 2)
    _require_shape(arrays, "bias", (target,))
    if kind is not Kind.MLP:
        return Affine(kind, link.metric, arrays["weights"], arrays["bias"])
    _, hidden = _shape(arrays, "hidden", 2)
    _require_shape(arrays, "hidden", (source, hidden))
    _require_shape(arrays, "hidden_bias", (hidden,))
    _require_shape(arrays, "output", (hidden, target))
    return ResidualMlp(link.metric, *(arrays[name] for name in _MLP))


def _stored(array: npt.NDArray[np.float32]) -> _Array:
    elements = np.ascontiguousarray(array, dtype="<f4")
    return _Array(elements.shape, elements.tobytes())


def _array(name: str, stored: _Array) -> npt.NDArray[np.float32]:
    if any(size < 1 for size in stored.shape) or 4 * int(np.prod(stored.shape)) != len(stored.data):
        raise ValueError(f"{name} has shape {stored.shape} and {len(stored.data)} bytes")
    array = np.frombuffer(stored.data, dtype="<f4").reshape(stored.shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has elements that are not finite")
    return array


def _shape(arrays: dict[str, npt.NDArray[np.float32]], name: str, axes: int) -> tuple[int, ...]:
    shape = arrays[name].shape
    if len(shape) != axes:
        raise ValueError(f"{name} has {len(shape)} axes, must have {axes}")
    return shape


def _require_shape(arrays: dict[str, npt.NDArray[np.float32]], name: str, shape: tuple[int, ...]) -> None:
    if arrays[name].shape != shape:
        raise ValueError(f"{name} has shape {arrays[name].shape}, must have {shape}")
