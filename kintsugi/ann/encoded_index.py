"""The unit that an index version holds: the graph over the encoded vectors, and the codes and vectors by row beside it.

Outline of a search: the graph gives some candidates per hit; whoever asked scores them with the stored vectors. Rows that
somebody chose already, as those of a filter are, are compared by their scan codes instead, without the graph.

Guarantees: a row is in the graph only once its codes are written, so that whatever the graph finds can be scored by
them; adding a row again replaces it everywhere. One thread changes it, any number search. Knows neither documents, nor
journals, nor how it is made durable.
"""

from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kintsugi.ann.breadth import Breadth
from kintsugi.ann.encoding import Encoding
from kintsugi.ann.narrowing import by_planes, by_scan_codes
from kintsugi.ann.recurrent import Planes
from kintsugi.ann.row_codes import RowCodes
from kintsugi.ann.scan_codes import ScanCodes
from kintsugi.ann.vector_index import GraphParameters, Rows, VectorIndex
from kintsugi.limits import MAX_CANDIDATES
from kintsugi.metrics import FloatArray

Allowed = Callable[[Rows], npt.NDArray[np.bool_]]

PLANES_DTYPE = np.dtype(np.uint8)
# What scan codes leave of the candidates of coarse codes, for stored vectors to decide.
_LEFT_PER_HIT = 5.0
_LEFT = 50
# Rows whose codes are written before they enter the graph.
_ADD_BLOCK = 512


class EncodedIndex:
    """Rows and their vectors, searchable. `scan` is None where int8 is not worth its disk, or cannot tell the vectors
    apart; `planes` holds the extra codes of encodings that have some; `vectors` what was given, for exact scores: they are
    gathered from a file in a fraction of the time that a database takes to find them."""

    def __init__(
        self,
        graph: VectorIndex,
        scan: ScanCodes | None = None,
        planes: RowCodes | None = None,
        vectors: RowCodes | None = None,
    ) -> None:
        self.graph = graph
        self.scan = scan
        self.planes = planes
        self.vectors = vectors
        # Candidates per hit of a search that names none. The owner may change it at any time.
        self.oversampling = graph.encoding.oversampling
        # Candidates that a search of the graph looks at which names no oversampling. Whoever measures recall notes it here.
        self.breadth = Breadth(graph.parameters.expansion_search)

    @classmethod
    def create(
        cls,
        encoding: Encoding,
        parameters: GraphParameters,
        stem: Path,
        first_row: int,
        vectors_dtype: np.dtype[Any] | None = None,
    ) -> "EncodedIndex":
        """An empty index. `stem`: where its files are, but for their suffixes. No row will be below `first_row`.
        `vectors_dtype`: of the vectors that are kept as they are, None to keep none."""
        scan, planes, vectors = None, None, None
        if encoding.scan is not None:
            scan = ScanCodes.create(scan_path(stem), encoding.scan, first_row)
        if encoding.extra_bytes:
            planes = RowCodes.create(planes_path(stem), encoding.extra_bytes, PLANES_DTYPE, first_row)
        if vectors_dtype is not None:
            vectors = RowCodes.create(vectors_path(stem), encoding.dimension, vectors_dtype, first_row)
        return cls(VectorIndex(encoding, parameters), scan, planes, vectors)

    def __len__(self) -> int:
        return len(self.graph)

    @property
    def encoding(self) -> Encoding:
        return self.graph.encoding

    @property
    def tombstones(self) -> int:
        """Slots of removed rows that no later add has taken over."""
        return self.graph.tombstones

    @property
    def removals(self) -> int:
        """Rows removed or replaced since the index was built."""
        return self.graph.removals

    @property
    def memory_bytes(self) -> int:
        """What it needs in memory: graph and codes. The planes are in a file as well, but searches read them all the
        time."""
        return self.graph.memory_bytes + len(self) * self.encoding.extra_bytes

    @property
    def mapped_bytes(self) -> int:
        """What its scan codes and vectors take on the disk, and in the page cache when that has room."""
        return sum(codes.disk_bytes for codes in self._files() if codes is not self.planes)

    def add(self, rows: Rows, vectors: FloatArray) -> None:
        """Adds rows, replacing those that are there. `rows` holds no duplicates. OSError when the disk is full: the
        index is then behind, and stays consistent."""
        for start in range(0, len(rows), _ADD_BLOCK):
            block, of_block = rows[start : start + _ADD_BLOCK], vectors[start : start + _ADD_BLOCK]
            if self.scan is not None:
                self.scan.write(block, of_block)
            if self.planes is not None:
                self.planes.write(block, self.encoding.extra_codes(of_block))
            if self.vectors is not None:
                self.vectors.write(block, of_block.astype(self.vectors.dtype, copy=False))
            self.graph.add(block, of_block)

    def remove(self, rows: Rows) -> None:
        """Removes those of the rows that are there. `rows` holds no duplicates."""
        self.graph.remove(rows)
        if self.scan is not None:
            self.scan.forget(rows)

    def candidates(
        self,
        queries: FloatArray,
        k: int,
        oversampling: float | None = None,
        *,
        count: int | None = None,
        allowed: Allowed | None = None,
        breadth: int | None = None,
    ) -> list[Rows]:
        """For each query rows among which its k nearest probably are, for exact scoring, best first as far as codes can
        tell. Those are `oversampling` candidates per hit, or fewer where the second stage of a cascade is sure enough. The
        graph is asked for `count` rows by those who found too few. `allowed` tells which rows the caller wants at all.
        `breadth`: see VectorIndex.search."""
        asked = self.wanted(k, oversampling) if count is None else count
        found = self.graph.search(queries, asked, breadth)
        if allowed is not None:
            found = [rows[allowed(rows)] for rows in found]
        return self._narrowed(queries, found, k, asked)

    def wanted(self, k: int, oversampling: float | None = None) -> int:
        """How many rows the graph is asked for by a search that does not say."""
        per_hit = (oversampling or self.oversampling) * self.encoding.widening
        return max(k, min(ceil(k * per_hit), MAX_CANDIDATES))

    def _narrowed(self, queries: FloatArray, found: list[Rows], k: int, asked: int) -> list[Rows]:
        """What the finer codes leave of what the graph was asked for."""
        if self.planes is not None:
            kept = max(k, ceil(asked / self.encoding.widening))
            found = by_planes(self.encoding, queries, found, kept, self._planes_of)
        if self.encoding.is_narrowed and self.scan is not None:
            # Who asks for more than usual found too few with what is left usually.
            kept = ceil(max(_LEFT, k * _LEFT_PER_HIT) * max(1.0, asked / self.wanted(k)))
            found = by_scan_codes(self.encoding, queries, found, kept, self.scan.codes.gather)
        return found

    def _planes_of(self, rows: Rows) -> Planes:
        assert self.planes is not None
        return self.encoding.planes(self.graph.bits(rows), self.planes.gather(rows))

    def scan_rows(self, queries: FloatArray, rows: Rows, count: int) -> list[Rows] | None:
        """For each query the `count` nearest of exactly these rows by their scan codes, best first; rows that are not
        in the index are left out. None when there are no scan codes: the caller compares the stored vectors."""
        return None if self.scan is None else self.scan.nearest(queries, rows, count)

    def drop_scan(self) -> None:
        """Goes on without scan codes, and removes their file. Searches under way go on with them."""
        if self.scan is not None:
            self.scan.codes.close()
            self.scan.codes.path.unlink(missing_ok=True)
            self.scan = None

    def sync_codes(self) -> None:
        """Returns once all codes that are in files are on the disk."""
        for codes in self._files():
            codes.sync()

    def close(self) -> None:
        """Lets go of the files. Searches under way go on."""
        for codes in self._files():
            codes.close()

    def _files(self) -> list[RowCodes]:
        files = (None if self.scan is None else self.scan.codes, self.planes, self.vectors)
        return [codes for codes in files if codes is not None]


def scan_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".scan")


def vectors_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".vectors")


def planes_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".planes")
