"""The bytes of a replica's database: keys and values of every sub-database. Pure.

    meta       b"format" -> version of this layout; b"state" -> State
    ids        id, cut to 511 bytes -> what was cut off (3 bytes), row      in id order
    documents  row -> header, models, id, attributes, text
    vectors    model, row -> elements
    journal    seq -> operation, outcome, epoch, row, version, digest       followed by index builds
    tail       seq of the last record -> digest, entry of the log           what recovery appends again
    names, postings, numbers: the attribute index, see attributes/layout.py

Numbers are big-endian, so that bytewise order is numeric order. Vectors and documents are apart because a value above
half a page takes whole pages: a vector with its attributes would waste much of them.

LMDB keys end at 511 bytes, encoded ids at 513. An id's key is its first 511 bytes; the two others stand, padded with
zeros and followed by their number, in front of the row. `ids` keeps several values per key in bytewise order
(DUPSORT), which is then exactly the order of the ids: equal paddings differ in trailing zeros only, shorter first.
"""

import struct
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np

from kintsugi.position import START, Position
from shard.storage_faults import StorageCorrupt

FORMAT_VERSION: Final = 3

MAX_KEY_BYTES: Final = 511
_MARK_BYTES: Final = 3
NO_MARK: Final = b"\x00\x00\x00"

ROW_BYTES: Final = 8
DIGEST_BYTES: Final = 20

JOURNAL: Final = struct.Struct(">BBQQQ20s")
JOURNAL_DTYPE: Final = np.dtype(
    [("operation", "u1"), ("outcome", "u1"), ("epoch", ">u8"), ("row", ">u8"), ("version", ">u8"), ("digest", "V20")]
)
# An embed's entry names its model, if it has one only, in these bits of the row: no row is that large.
JOURNAL_MODEL_SHIFT: Final = 48
# version, written at, bytes of the id, number of models, bytes of the attributes
_HEADER: Final = struct.Struct(">QQHBI")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What changes with every batch, in one value. Row 0 is never given: in the journal it means no row."""

    stored: str
    epoch: int = 0
    seq: int = 0
    digest: bytes = b""
    next_row: int = 1
    fenced_epoch: int = 0
    # Documents with a vector, by model.
    vectors: dict[int, int] = {}
    # The first attribute number never given; 0 stands for the documents themselves.
    next_attribute: int = 1

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.seq, self.digest) if self.seq else START


# Made once: msgspec crashes when two threads are the first to decode the same type.
_READ_STATE = msgspec.msgpack.Decoder(State)


def encode_state(state: State) -> bytes:
    return msgspec.msgpack.encode(state)


def decode_state(value: bytes) -> State:
    try:
        return _READ_STATE.decode(value)
    except msgspec.DecodeError as error:
        raise StorageCorrupt(f"meta state does not decode: {error}") from error


def number(value: int) -> bytes:
    """The key of a row or of a sequence number."""
    return value.to_bytes(8, "big")


def model_prefix(model: int) -> bytes:
    return model.to_bytes(2, "big")


def vector_key(model: int, row: int) -> bytes:
    return model.to_bytes(2, "big") + row.to_bytes(8, "big")


def id_key(encoded: bytes) -> tuple[bytes, bytes]:
    """The key of an id and the mark in front of its row."""
    if len(encoded) < MAX_KEY_BYTES:
        return encoded, NO_MARK
    rest = encoded[MAX_KEY_BYTES:]
    return encoded[:MAX_KEY_BYTES], rest.ljust(_MARK_BYTES - 1, b"\x00") + bytes((len(rest),))


def id_and_row(key: bytes, value: bytes) -> tuple[bytes, int]:
    """Inverts id_key for a key and value of `ids`."""
    if len(value) != _MARK_BYTES + ROW_BYTES:
        raise StorageCorrupt(f"ids value has {len(value)} bytes, must have {_MARK_BYTES + ROW_BYTES}")
    return key + value[: value[2]], int.from_bytes(value[_MARK_BYTES:], "big")


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document without its vectors. `models` lists those it has a vector of, ascending. Attributes and text may be
    views into the database that end with the transaction."""

    row: int
    version: int
    written_at_us: int
    models: tuple[int, ...]
    id: bytes
    attributes: bytes | memoryview
    text: bytes | memoryview

    def without_model(self, model: int) -> "DocumentRecord":
        return replace(self, models=tuple(one for one in self.models if one != model))


def encode_document(document: DocumentRecord) -> bytes:
    header = _HEADER.pack(
        document.version,
        document.written_at_us,
        len(document.id),
        len(document.models),
        len(document.attributes),
    )
    models = b"".join(map(model_prefix, document.models))
    return b"".join((header, models, document.id, document.attributes, document.text))


def decode_document(row: int, value: bytes | memoryview) -> DocumentRecord:
    version, written_at_us, id_bytes, models, attributes_bytes = _HEADER.unpack_from(value)
    id_at = _HEADER.size + 2 * models
    attributes_at = id_at + id_bytes
    text_at = attributes_at + attributes_bytes
    if text_at > len(value):
        raise StorageCorrupt(f"document of row {row} has {len(value)} bytes, its header needs {text_at}")
    return DocumentRecord(
        row=row,
        version=version,
        written_at_us=written_at_us,
        models=struct.unpack_from(f">{models}H", value, _HEADER.size) if models else (),
        id=bytes(value[id_at:attributes_at]),
        attributes=value[attributes_at:text_at],
        text=value[text_at:],
    )


def document_name(value: bytes | memoryview) -> tuple[bytes, int]:
    """Only the id and the version of a document: what every hit needs."""
    version, _, id_bytes, models, _ = _HEADER.unpack_from(value)
    id_at = _HEADER.size + 2 * models
    return bytes(value[id_at : id_at + id_bytes]), version


def document_content(value: bytes | memoryview) -> tuple[bytes | memoryview, bytes | memoryview]:
    """Only the attributes and the text of a document."""
    _, _, id_bytes, models, attributes_bytes = _HEADER.unpack_from(value)
    attributes_at = _HEADER.size + 2 * models + id_bytes
    text_at = attributes_at + attributes_bytes
    return value[attributes_at:text_at], value[text_at:]
