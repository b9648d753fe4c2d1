"""The opaque page tokens of Scroll: after which id of which collection to go on. Pure.

Layout: a format version byte, the length of the uid, the uid, the ordered encoding of the id, an 8-byte checksum.
"""

import hashlib

from kintsugi import ids
from kintsugi.errors import InvalidArgument
from kintsugi.registry.records import Collection

FORMAT_VERSION = 1
_FIELD = "page_token"
_CHECKSUM_BYTES = 8


def encode(collection_uid: str, after: bytes) -> bytes:
    uid = collection_uid.encode()
    body = bytes([FORMAT_VERSION, len(uid)]) + uid + after
    return body + _checksum(body)


def decode(data: bytes, collection: Collection) -> bytes:
    """The encoded id to start behind, empty for an empty token. Raises InvalidArgument for what encode did not make."""
    if not data:
        return b""
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if not body or checksum != _checksum(body):
        raise InvalidArgument(_FIELD, "is not a page token", "must be given as the response before returned it")
    if body[0] != FORMAT_VERSION:
        raise InvalidArgument(_FIELD, f"has format {body[0]}", f"must have {FORMAT_VERSION}")
    uid, after = body[2 : 2 + body[1]], body[2 + body[1] :]
    if uid != collection.uid.encode():
        raise InvalidArgument(_FIELD, "is of another collection", f"must be of {collection.name}")
    try:
        ids.check(ids.decode(after), _FIELD)
    except ValueError as error:
        raise InvalidArgument(_FIELD, "holds no id", "must be given as the response before returned it") from error
    return after


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, person=b"page").digest()
