"""The bytes of the attribute index: keys and values of its three sub-databases. Pure.

    names     attribute name -> attribute number
    postings  attribute, kind, text, row / 2^16 -> Roaring container of the rows; the rest of a long text
    numbers   attribute, row / 2^7 -> (row % 2^7, number) pairs, ascending

Attribute 0 stands for the documents themselves: its postings hold the rows of all of them.

Texts in keys are bytewise in order and none is the beginning of another. UTF-8 has no bytes above 0xF4, so that each
byte can be raised by one and 0 is free for the end. LMDB keys end at 511 bytes: a text longer than TEXT_KEY_BYTES is cut,
its beginning stands in the key, with a mark and a hash behind it, and the rest of it behind the container. Cut texts of
one beginning are in no order among each other, but together in their place.
"""

import struct
from hashlib import blake2b
from typing import Final

import numpy as np

NUMBER_BYTES: Final = 5
DOCUMENTS: Final = 0

# Kinds of postings. All of one kind are neighbours.
PRESENCE: Final = 0
BOOLEAN: Final = 1
STRING: Final = 2

TEXT_KEY_BYTES: Final = 480
CHUNK_BITS: Final = 16
CHUNK_BYTES: Final = 6
BLOCK_BITS: Final = 7
PAIR_DTYPE: Final = np.dtype([("row", "u1"), ("number", "<f8")])

_PREFIX_BYTES: Final = NUMBER_BYTES + 1
_TEXT_AT: Final = _PREFIX_BYTES
_CUT_AT: Final = _PREFIX_BYTES + TEXT_KEY_BYTES
_HASH_BYTES: Final = 16
# Behind what follows the beginning of a cut text in a key.
PAST_CUT: Final = b"\xff" * (_HASH_BYTES + CHUNK_BYTES + 1)
_CUT_KEY_BYTES: Final = _CUT_AT + 1 + _HASH_BYTES + CHUNK_BYTES
_MAX_NAME_KEY: Final = 511
_END: Final = b"\x00"
_BEHIND_END: Final = b"\x01"
_LONG: Final = 0xFF
_RAISED: Final = bytes(min(byte + 1, _LONG) for byte in range(256))
_PAIR: Final = struct.Struct("<Bd")

Pair = tuple[int, float]
View = bytes | memoryview


def name_key(name: str) -> bytes:
    """The key of an attribute name: itself, or its beginning and a hash, which are longer than any name as it is."""
    encoded = name.encode()
    if len(encoded) < _MAX_NAME_KEY:
        return encoded
    return encoded[: _MAX_NAME_KEY - _HASH_BYTES] + blake2b(encoded, digest_size=_HASH_BYTES).digest()


def number_bytes(attribute: int) -> bytes:
    return attribute.to_bytes(NUMBER_BYTES, "big")


def kind_prefix(attribute: int, kind: int) -> bytes:
    """What the keys of all postings of one kind begin with."""
    return number_bytes(attribute) + bytes((kind,))


def raised(text: bytes) -> bytes:
    """A text in the order-preserving encoding of keys, without its end."""
    return text.translate(_RAISED)


def posting_prefix(attribute: int, kind: int, text: bytes) -> bytes:
    """The key of a posting up to the chunk."""
    if len(text) <= TEXT_KEY_BYTES:
        return kind_prefix(attribute, kind) + raised(text) + _END
    ending = bytes((_LONG,)) + blake2b(text, digest_size=_HASH_BYTES).digest()
    return kind_prefix(attribute, kind) + raised(text[:TEXT_KEY_BYTES]) + ending


def text_rest(text: bytes) -> bytes:
    """What of a text is not in the key."""
    return text[TEXT_KEY_BYTES:]


def chunk_bytes(chunk: int) -> bytes:
    return chunk.to_bytes(CHUNK_BYTES, "big")


def chunk_of(key: View) -> int:
    return int.from_bytes(key[-CHUNK_BYTES:], "big")


def is_cut(key: bytes) -> bool:
    """Whether the rest of a posting's text is in the value."""
    # Longer than the key of any text that is whole.
    return len(key) == _CUT_KEY_BYTES


def cut_text(key: bytes) -> bytes:
    """The text of a posting as far as its key holds it, raised. For those that are cut."""
    return key[_TEXT_AT:_CUT_AT]


def behind_text(text: bytes, *, itself: bool) -> bytes:
    """Where in the order of texts in keys a text begins or, with `itself`, ends. Cut texts of its beginning are behind
    either when they sort behind it, or when it is cut itself."""
    if len(text) <= TEXT_KEY_BYTES:
        return raised(text) + (_BEHIND_END if itself else _END)
    return raised(text[:TEXT_KEY_BYTES]) + bytes((_LONG,))


def block_key(attribute: int, block: int) -> bytes:
    return number_bytes(attribute) + block.to_bytes(8, "big")


def block_of(key: View) -> int:
    return int.from_bytes(key[NUMBER_BYTES:], "big")


def encode_block(pairs: list[Pair]) -> bytes:
    return b"".join(_PAIR.pack(*pair) for pair in pairs)


def decode_block(value: View) -> list[Pair]:
    return list(_PAIR.iter_unpack(value))
