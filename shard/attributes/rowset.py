"""Sets of rows: Roaring containers, which hold the rows of one chunk of 2^16 rows, and bitmaps, which hold any rows.

A stored container is its number of rows less one (u16, little-endian), then the rows within the chunk: up to 4096 of
them ascending as u16, more as 2^16 bits. These are the pieces of Roaring's portable format, so that a bitmap of many
chunks is their concatenation behind a header, and reading one is no work per row. What follows a container is not looked
at. Pure.
"""

import struct
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap, BitMap64

from kintsugi.ann.vector_index import Rows
from shard.attributes.layout import CHUNK_BITS, CHUNK_BYTES, View

_LARGEST_ARRAY: Final = 4096
_CHUNK: Final = 1 << CHUNK_BITS
_BITSET_BYTES: Final = _CHUNK // 8
# Roaring's mark of a bitmap without run containers, and what stands in front of the container when there is one.
_NO_RUNS: Final = 12346
_SINGLE: Final = struct.Struct("<IIHHI")
_BUCKETS: Final = struct.Struct("<Q")
_BUCKET: Final = struct.Struct("<III")
_COUNT: Final = struct.Struct("<H")

Lows = npt.NDArray[np.uint16]


def container_bytes(value: View) -> int:
    """How much of the value is the container."""
    count = int.from_bytes(value[:2], "little") + 1
    return 2 + (2 * count if count <= _LARGEST_ARRAY else _BITSET_BYTES)


def encode_container(lows: Lows) -> bytes:
    """The container of some rows of a chunk, at least one, each once and ascending."""
    count = _COUNT.pack(len(lows) - 1)
    if len(lows) <= _LARGEST_ARRAY:
        return count + lows.astype("<u2", copy=False).tobytes()
    bits = np.zeros(_CHUNK, dtype=np.bool_)
    bits[lows] = True
    return count + np.packbits(bits, bitorder="little").tobytes()


def changed_container(value: View | None, added: Sequence[int], removed: Sequence[int]) -> bytes | None:
    """The container after rows came and went; None for no rows."""
    if value is None and len(added) == 1:
        return b"\x00\x00" + _COUNT.pack(added[0])
    bitmap = BitMap() if value is None else _one_chunk(value)
    if added:
        bitmap.update(added)
    if removed:
        bitmap.difference_update(BitMap(removed))
    if not bitmap:
        return None
    data = bitmap.serialize()
    if int.from_bytes(data[:4], "little") != _NO_RUNS:
        return encode_container(np.frombuffer(bitmap.to_array(), dtype=np.uint32).astype(np.uint16))
    return bytes(data[10:12] + data[_SINGLE.size :])


def _one_chunk(value: View) -> BitMap:
    header = _SINGLE.pack(_NO_RUNS, 1, 0, int.from_bytes(value[:2], "little"), _SINGLE.size)
    return BitMap.deserialize(header + bytes(value[2 : container_bytes(value)]))


def bitmap_of_chunks(chunks: Sequence[int], values: Sequence[View]) -> BitMap64:
    """The rows of some containers, one each of ascending chunks."""
    buckets = []
    for high, group in groupby(zip(chunks, values, strict=True), key=lambda pair: pair[0] >> CHUNK_BITS):
        pairs = list(group)
        parts = [bytes(value[2 : container_bytes(value)]) for _, value in pairs]
        # A key and a count for each container, then where it begins, behind the two of them.
        heads = [(chunk % _CHUNK).to_bytes(2, "little") + value[:2] for chunk, value in pairs]
        sizes = np.array([0, *map(len, parts[:-1])], dtype=np.int64)
        offsets = (8 + 8 * len(parts) + np.cumsum(sizes)).astype("<u4").tobytes()
        buckets.append(b"".join((_BUCKET.pack(high, _NO_RUNS, len(parts)), *heads, offsets, *parts)))
    return BitMap64.deserialize(_BUCKETS.pack(len(buckets)) + b"".join(buckets))


def bitmap_of_rows(rows: Rows) -> BitMap64:
    """The rows, given in any order."""
    if not len(rows):
        return BitMap64()
    rows = np.sort(rows)
    repeats = rows[1:] == rows[:-1]
    if repeats.any():
        rows = rows[np.append(True, ~repeats)]
    chunks = rows >> np.uint64(CHUNK_BITS)
    edges = [0, *(np.flatnonzero(chunks[1:] != chunks[:-1]) + 1).tolist(), len(rows)]
    lows = rows.astype(np.uint16)
    values = [encode_container(lows[start:end]) for start, end in pairwise(edges)]
    return bitmap_of_chunks(chunks[edges[:-1]].tolist(), values)


def union(chunks: Sequence[bytes], values: Sequence[bytes]) -> BitMap64:
    """The rows of containers, with nothing behind them, of any chunks, each as often as it comes. Chunks as in keys."""
    if not values:
        return BitMap64()
    pieces = np.frombuffer(b"".join(values), dtype="<u2")
    sizes = np.fromiter(map(len, values), dtype=np.int64, count=len(values)) // 2
    is_array = pieces[np.cumsum(sizes) - sizes] < _LARGEST_ARRAY
    padded = np.zeros((len(chunks), 8), dtype=np.uint8)
    padded[:, -CHUNK_BYTES:] = np.frombuffer(b"".join(chunks), dtype=np.uint8).reshape(len(chunks), CHUNK_BYTES)
    numbers = padded.view(">u8").ravel().astype(np.uint64)
    # All arrays at once: a row for each piece but the first of a container, which is its count.
    lows, sizes = pieces[np.repeat(is_array, sizes)], sizes[is_array]
    lows = np.delete(lows, np.cumsum(sizes) - sizes)
    bitmap = bitmap_of_rows(np.repeat(numbers[is_array] << np.uint64(CHUNK_BITS), sizes - 1) + lows)
    for place in np.flatnonzero(~is_array).tolist():
        bitmap |= bitmap_of_chunks([int(numbers[place])], [values[place]])
    return bitmap


def rows_of(bitmap: BitMap64) -> Rows:
    """The rows, ascending."""
    return np.frombuffer(bitmap.to_array(), dtype=np.uint64) if bitmap else np.empty(0, dtype=np.uint64)
