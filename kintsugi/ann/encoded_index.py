"""The unit that an index version holds: the graph over the encoded vectors, and the codes by row beside it.

Outline of a search: the graph gives some candidates per hit; whoever asked scores them with the stored vectors. Rows that
somebody chose already, as those of a filter are, are compared by their scan codes instead, without the graph.

Guarantees: a row is in the graph only once its codes are written, so that whatever the graph finds can be scored by
them; adding a row again replaces it everywhere. One thread changes it, any number search. Knows neither documents, nor
journals, nor how it is made durable.
"""

from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kintsugi.ann.encoding import Encoding
from kintsugi.ann.scan_codes import ScanCodes
from kintsugi.ann.vector_index import GraphParameters, Rows, VectorIndex
from kintsugi.limits import MAX_CANDIDATES
from kintsugi.metrics import FloatArray

Allowed = Callable[[Rows], npt.NDArray[np.bool_]]

SCAN_SUFFIX = ".scan"
# Rows whose codes are written before they enter the graph.
_ADD_BLOCK = 512


class EncodedIndex:
    """Rows and their vectors, searchable. `oversampling`: candidates per hit of a search that names none; it may be
    changed at any time. `scan` is None where int8 is not worth its disk, or cannot tell the vectors apart."""

    def __init__(self, graph: VectorIndex, scan: ScanCodes | None = None, oversampling: float = 0.0) -> None:
        self.graph = graph
        self.scan = scan
        self.oversampling = oversampling or graph.encoding.oversampling

    @classmethod
    def create(cls, encoding: Encoding, parameters: GraphParameters, stem: Path, first_row: int) -> "EncodedIndex":
        """An empty index. `stem`: where its files are, but for their suffixes. No row will be below `first_row`."""
        scan = encoding.scan
        codes = None if scan is None else ScanCodes.create(stem.with_name(stem.name + SCAN_SUFFIX), scan, first_row)
        return cls(VectorIndex(encoding, parameters), codes)

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
        """What it needs in memory: graph and codes."""
        return self.graph.memory_bytes

    @property
    def mapped_bytes(self) -> int:
        """What its scan codes take on the disk, and in the page cache when that has room."""
        return 0 if self.scan is None else self.scan.codes.disk_bytes

    def add(self, rows: Rows, vectors: FloatArray) -> None:
        """Adds rows, replacing those that are there. `rows` holds no duplicates. OSError when the disk is full: the
        index is then behind, and stays consistent."""
        for start in range(0, len(rows), _ADD_BLOCK):
            block, of_block = rows[start : start + _ADD_BLOCK], vectors[start : start + _ADD_BLOCK]
            if self.scan is not None:
                self.scan.write(block, of_block)
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
    ) -> list[Rows]:
        """For each query rows among which its k nearest probably are, for exact scoring. The graph is asked for
        `oversampling` candidates per hit; or for `count` altogether, by those who found the default too few.
        `allowed` tells which rows the caller wants at all."""
        wanted = self.wanted(k, oversampling) if count is None else count
        found = self.graph.search(queries, wanted)
        return found if allowed is None else [rows[allowed(rows)] for rows in found]

    def wanted(self, k: int, oversampling: float | None = None) -> int:
        """How many candidates the graph is asked for by a search that does not say."""
        return max(k, min(ceil(k * (oversampling or self.oversampling)), MAX_CANDIDATES))

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
        if self.scan is not None:
            self.scan.codes.sync()

    def close(self) -> None:
        """Lets go of the files. Searches under way go on."""
        if self.scan is not None:
            self.scan.codes.close()
