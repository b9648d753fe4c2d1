"""Calibrated int8 codes of whole vectors, by row, in a mapped file: compared one by one where the graph cannot help, as
with the few rows that fulfil a filter, and as the second stage behind codes that are cheaper still.

Guarantees: only rows that are in the index are returned, whatever is asked about; one search copies at most a small
block of codes at once; searches may run while rows change. Knows neither graphs nor stored vectors.
"""

from pathlib import Path
from typing import Any, Literal

import numkong
import numpy as np
import numpy.typing as npt

from kintsugi.ann.encoding import Encoded, Encoding
from kintsugi.ann.row_codes import RowCodes, RowCodesIdentity, Rows
from kintsugi.metrics import FloatArray

_DTYPE = np.dtype(np.int8)
# 2048 codes of 384 elements stay in the caches between being gathered and being compared: 10k rows take 0.3 ms.
_BLOCK_BYTES = 2**20
_SCORES_AT_ONCE = 2**22
# numkong's names of usearch's measures.
_DISTANCE: dict[str, Literal["angular", "dot", "sqeuclidean"]] = {"cos": "angular", "ip": "dot", "l2sq": "sqeuclidean"}


class _RowSet:
    """Which rows there are, as one byte for each row from the first on."""

    def __init__(self, first_row: int) -> None:
        self._first_row = first_row
        self._flags: npt.NDArray[np.bool_] = np.zeros(1024, dtype=np.bool_)

    def add(self, rows: Rows) -> None:
        places = self._places(rows)
        wanted = int(places.max(initial=-1)) + 1
        if wanted > len(self._flags):
            grown = np.zeros(max(wanted, 2 * len(self._flags)), dtype=np.bool_)
            grown[: len(self._flags)] = self._flags
            self._flags = grown
        self._flags[places] = True

    def discard(self, rows: Rows) -> None:
        flags = self._flags
        places = self._places(rows)
        flags[places[(places >= 0) & (places < len(flags))]] = False

    def having(self, rows: Rows) -> npt.NDArray[np.bool_]:
        flags = self._flags
        places = self._places(rows)
        inside = (places >= 0) & (places < len(flags))
        return inside & flags[np.where(inside, places, 0)]

    def _places(self, rows: Rows) -> npt.NDArray[np.int64]:
        return rows.astype(np.int64) - self._first_row


class ScanCodes:
    """Make it with `create` or `open`."""

    def __init__(self, encoding: Encoding, codes: RowCodes) -> None:
        self.encoding = encoding
        self.codes = codes
        self._distance = _DISTANCE[encoding.usearch_metric]
        self._rows = _RowSet(codes.first_row)

    @classmethod
    def create(cls, path: Path, encoding: Encoding, first_row: int) -> "ScanCodes":
        """`encoding` is the `scan` of that of the index."""
        return cls(encoding, RowCodes.create(path, encoding.graph_dimension, _DTYPE, first_row))

    @classmethod
    def open(cls, path: Path, identity: RowCodesIdentity, encoding: Encoding, rows: Rows) -> "ScanCodes":
        """Opens the codes of an index that holds `rows`. Raises as RowCodes.open does."""
        opened = cls(encoding, RowCodes.open(path, identity, _DTYPE, int(rows.max(initial=0)) + 1 if len(rows) else 0))
        opened._rows.add(rows)
        return opened

    def write(self, rows: Rows, vectors: FloatArray) -> None:
        self.codes.write(rows, self.encoding.encode(vectors))
        self._rows.add(rows)

    def forget(self, rows: Rows) -> None:
        self._rows.discard(rows)

    def nearest(self, queries: FloatArray, rows: Rows, count: int) -> list[Rows]:
        """For each query the `count` nearest by their codes of those rows that are in the index, best first."""
        here = rows[self._rows.having(rows)]
        codes = self.encoding.encode_queries(queries)
        at_once = max(1, _SCORES_AT_ONCE // max(1, len(here)))
        found: list[Rows] = []
        for start in range(0, len(codes), at_once):
            distances = self._distances(codes[start : start + at_once], here)
            found += [here[_smallest(of_query, count)] for of_query in distances]
        return found

    def _distances(self, queries: Encoded, rows: Rows) -> npt.NDArray[np.float32]:
        """Queries x rows; products are negated, so that less is nearer."""
        distances = np.empty((len(queries), len(rows)), dtype=np.float32)
        block = max(1, _BLOCK_BYTES // self.codes.width)
        for start in range(0, len(rows), block):
            gathered = self.codes.gather(rows[start : start + block])
            distances[:, start : start + block] = np.asarray(numkong.cdist(queries, gathered, self._distance))
        if self._distance == "dot":
            np.negative(distances, out=distances)
        return distances


def _smallest(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """The places of the smallest values, in ascending order of them."""
    if len(values) <= count:
        return np.argsort(values, kind="stable")
    chosen = np.argpartition(values, count - 1)[:count]
    return chosen[np.argsort(values[chosen], kind="stable")]
