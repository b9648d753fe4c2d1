"""Documents on their way into a file: pages appended as they come, read back in order when all are there.

A page is a length and a msgpack of its documents. What was cut off by a crash is cut away before more is appended.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from kintsugi.ids import DocId
from kintsugi.sdk.types import Attributes

_LENGTH = struct.Struct(">Q")


class SpooledDocument(msgspec.Struct, array_like=True, frozen=True):
    """A document with one vector, as the little-endian bytes of its numbers. `attributes` are JSON."""

    id: DocId
    vector: bytes
    attributes: bytes = b"{}"
    text: str = ""


class Spool:
    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, documents: Iterable[SpooledDocument]) -> int:
        """Adds a page and returns the size of the spool, all of it synced."""
        page = msgspec.msgpack.encode(list(documents))
        with self.path.open("ab") as stream:
            stream.write(_LENGTH.pack(len(page)) + page)
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()

    def cut(self, size: int) -> None:
        """Forgets what stands behind `size`."""
        self.path.touch()
        os.truncate(self.path, size)

    def pages(self) -> Iterator[list[SpooledDocument]]:
        decoder = msgspec.msgpack.Decoder(list[SpooledDocument])
        with self.path.open("rb") as stream:
            while head := stream.read(_LENGTH.size):
                yield decoder.decode(stream.read(_LENGTH.unpack(head)[0]))


def encode_attributes(attributes: Attributes | None) -> bytes:
    return msgspec.json.encode(attributes or {})
