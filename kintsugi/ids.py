"""Document ids: their bounds, their order, their ordered byte encoding and the shard that owns them.

An id is an unsigned 64-bit integer or a string of 1 to 512 bytes of UTF-8. Integers order numerically and before all
strings; strings order bytewise. Pure: knows nothing of storage or RPC.
"""

import hashlib
from typing import TypeAlias

from kintsugi.errors import InvalidArgument

DocId: TypeAlias = int | str

MAX_INTEGER = 2**64 - 1
MAX_TEXT_BYTES = 512

_INTEGER_TYPE = b"\x00"
_TEXT_TYPE = b"\x01"


def check(doc_id: object, field: str = "id") -> DocId:
    """Returns the id when it is within its bounds and raises InvalidArgument naming `field` otherwise."""
    if isinstance(doc_id, bool) or not isinstance(doc_id, int | str):
        raise InvalidArgument(field, f"is a {type(doc_id).__name__}", "must be an unsigned integer or a string")
    if isinstance(doc_id, int):
        if not 0 <= doc_id <= MAX_INTEGER:
            raise InvalidArgument(field, f"is {doc_id}", f"must be 0 to {MAX_INTEGER}")
        return doc_id
    try:
        size = len(doc_id.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(field, "is not valid Unicode", "must be encodable as UTF-8") from error
    if not 1 <= size <= MAX_TEXT_BYTES:
        raise InvalidArgument(field, f"has {size} bytes", f"must have 1 to {MAX_TEXT_BYTES} bytes of UTF-8")
    return doc_id


def encode(doc_id: DocId) -> bytes:
    """Encodes an id so that the bytewise order of the encodings is the order of the ids: a type byte, then
    the big-endian integer or the UTF-8 bytes."""
    if isinstance(doc_id, int):
        return _INTEGER_TYPE + doc_id.to_bytes(8, "big")
    return _TEXT_TYPE + doc_id.encode()


def decode(encoded: bytes) -> DocId:
    """Inverts encode."""
    if encoded[:1] == _INTEGER_TYPE:
        return int.from_bytes(encoded[1:], "big")
    if encoded[:1] == _TEXT_TYPE:
        return encoded[1:].decode()
    raise ValueError(f"unknown id type byte {encoded[:1]!r}")


def shard_of_encoded(encoded: bytes, shards: int) -> int:
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big") % shards


def shard_of(doc_id: DocId, shards: int) -> int:
    """The shard that owns an id: BLAKE2b-64 of its encoding, read as a big-endian integer, modulo the shard count."""
    return shard_of_encoded(encode(doc_id), shards)


def order_key(doc_id: DocId) -> tuple[bool, int, bytes]:
    """A sort key with the order of ids."""
    if isinstance(doc_id, int):
        return (False, doc_id, b"")
    return (True, 0, doc_id.encode())
