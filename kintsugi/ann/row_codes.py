"""A file of codes of one width, addressed by row: written through the file, read through a map of it.

Layout: one page of header, then the code of `first_row`, that of the row behind it, and so on. Rows ascend and are never
given twice, so a file that began at row 0 would only grow; an index that is built anew begins at the first row there is.
Rows without a code are holes, which take no room on the disk.

Guarantees: a full disk is an OSError of `write`, never a signal: no mapped page is ever written to. A code that was
written is read by every later gather of any thread, in parts while it is being replaced. Growing disturbs no gather under
way: it goes on in the map that it began with. What was synced survives a power cut. Knows nothing of what the codes mean,
nor which rows have one.
"""

import itertools
import mmap
import os
import struct
import threading
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.uint64]
Codes = npt.NDArray[Any]

_MAGIC = b"KINTROWS"
_FORMAT_VERSION = 1
# Magic, format, width, first row, token; then their checksum.
_HEADER = struct.Struct("<8sIIQ16s")
_CHECKSUM = struct.Struct("<I")
_DATA_OFFSET = 4096
_TOKEN_BYTES = 16
_SECTOR_BYTES = 512
# The file first has room for so many rows, and doubles; room costs addresses, not disk.
_FIRST_ROOM_ROWS = 4096


@dataclass(frozen=True, slots=True)
class RowCodesIdentity:
    """What a file must say of itself to be taken for the one that was saved. `token` is random."""

    width: int
    first_row: int
    token: str


class RowCodes:
    """Open it with `create` or `open`. One thread writes at a time, any number gather."""

    def __init__(self, path: Path, descriptor: int, identity: RowCodesIdentity, dtype: np.dtype[Any]) -> None:
        self.path = path
        self.identity = identity
        self._descriptor = descriptor
        self._dtype = dtype
        self._code_bytes = identity.width * dtype.itemsize
        self._write_lock = threading.Lock()
        # Replaced as a whole when the file has grown.
        self._codes = self._mapped()
        # Also runs once whoever searched last has let go of the object.
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def create(cls, path: Path, width: int, dtype: npt.DTypeLike, first_row: int) -> "RowCodes":
        """Makes an empty file in the place of whatever is there. `width`: elements of a code."""
        identity = RowCodesIdentity(width, first_row, os.urandom(_TOKEN_BYTES).hex())
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_all(descriptor, _header_of(identity, np.dtype(dtype)), 0)
            os.ftruncate(descriptor, _DATA_OFFSET + _FIRST_ROOM_ROWS * width * np.dtype(dtype).itemsize)
            return cls(path, descriptor, identity, np.dtype(dtype))
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def open(cls, path: Path, identity: RowCodesIdentity, dtype: npt.DTypeLike, past_last_row: int) -> "RowCodes":
        """Opens a file that holds the codes of rows below `past_last_row`. OSError when there is none, ValueError when
        it is another one, or has lost its end."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _check(path, descriptor, identity, np.dtype(dtype), past_last_row)
            return cls(path, descriptor, identity, np.dtype(dtype))
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def width(self) -> int:
        return self.identity.width

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def first_row(self) -> int:
        return self.identity.first_row

    @property
    def disk_bytes(self) -> int:
        """What the file takes on the disk, 0 once it is closed. Holes take nothing."""
        with self._write_lock:
            return os.fstat(self._descriptor).st_blocks * _SECTOR_BYTES if self._close.alive else 0

    def write(self, rows: Rows, codes: Codes) -> None:
        """Sets the codes of some rows, each of them once. OSError when the disk does not take them: some rows may
        have been written."""
        if not len(rows):
            return
        if int(rows.min()) < self.first_row:
            raise ValueError(f"row {rows.min()} is below the first row {self.first_row} of {self.path.name}")
        if codes.shape != (len(rows), self.width) or codes.dtype != self._dtype:
            raise ValueError(
                f"codes are {codes.dtype} {codes.shape}, expected {self._dtype} ({len(rows)}, {self.width})"
            )
        with self._write_lock:
            self._check_open()
            self._grow(int(rows.max()) - self.first_row + 1)
            places, lines = rows - np.uint64(self.first_row), np.ascontiguousarray(codes)
            # Neighbours are written in one call; those of a build are all neighbours.
            breaks = np.flatnonzero(np.diff(places) != 1) + 1
            starts = [0, *breaks.tolist(), len(places)]
            for start, end in itertools.pairwise(starts):
                offset = _DATA_OFFSET + int(places[start]) * self._code_bytes
                _write_all(self._descriptor, lines[start:end].data.cast("B"), offset)

    def gather(self, rows: Rows) -> Codes:
        """A copy of the codes of some rows, in their order; what rows without a code have means nothing. Rows beyond all
        that were ever written are an IndexError."""
        return np.take(self._codes, rows.astype(np.int64) - self.first_row, axis=0)

    def sync(self) -> None:
        """Returns once all that was written before is on the disk."""
        self._check_open()
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Lets go of the file. Gathers may go on, and find what they found before. Idempotent."""
        with self._write_lock:
            self._close()

    def _check_open(self) -> None:
        if not self._close.alive:
            raise ValueError(f"{self.path.name} is closed")

    def _grow(self, wanted: int) -> None:
        room = len(self._codes)
        if wanted <= room:
            return
        while room < wanted:
            room *= 2
        os.ftruncate(self._descriptor, _DATA_OFFSET + room * self._code_bytes)
        self._codes = self._mapped()

    def _mapped(self) -> Codes:
        room = (os.fstat(self._descriptor).st_size - _DATA_OFFSET) // self._code_bytes
        # The array keeps the map alive, and so does whoever gathers from the array.
        pages = mmap.mmap(self._descriptor, _DATA_OFFSET + room * self._code_bytes, prot=mmap.PROT_READ)
        codes = np.frombuffer(pages, dtype=self._dtype, offset=_DATA_OFFSET, count=room * self.width)
        return codes.reshape(room, self.width)


def _header_of(identity: RowCodesIdentity, dtype: np.dtype[Any]) -> bytes:
    width_bytes = identity.width * dtype.itemsize
    fields = (_MAGIC, _FORMAT_VERSION, width_bytes, identity.first_row, bytes.fromhex(identity.token))
    packed = _HEADER.pack(*fields)
    return packed + _CHECKSUM.pack(zlib.crc32(packed))


def _check(path: Path, descriptor: int, identity: RowCodesIdentity, dtype: np.dtype[Any], past_last_row: int) -> None:
    expected = _header_of(identity, dtype)
    if os.pread(descriptor, len(expected), 0) != expected:
        raise ValueError(f"{path.name} is not the file of row codes that was saved")
    rows = max(0, past_last_row - identity.first_row)
    size, needed = os.fstat(descriptor).st_size, _DATA_OFFSET + max(rows, 1) * identity.width * dtype.itemsize
    if size < needed:
        raise ValueError(f"{path.name} has {size} bytes, expected at least {needed}")


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
