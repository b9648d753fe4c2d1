"""One usearch index behind a few safe calls.

Guarantees: every usearch call holds this index's own lock (remove, save and load of usearch take none); the lock is
first come, first served, and long work is cut into small chunks, so a search waits for one chunk of adds at most;
adding a row that is there replaces it within one holding of the lock; what usearch returns beyond its counts, or
under keys never added, is dropped. Uses neither compacting removal (recall falls to 0.12), nor `view`, nor
multi-threaded adds (they orphan nodes). Knows nothing of documents or journals.
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from usearch.index import BatchMatches, Index

from kintsugi.ann.encoding import Encoded, Encoding
from kintsugi.ann.footprint import index_bytes
from kintsugi.metrics import FloatArray

Rows = npt.NDArray[np.uint64]

# About 1 ms of work on 100k vectors of 384 dimensions: the longest that a search waits for adds.
_ADD_CHUNK = 8
_ENCODE_CHUNK = 256
_REMOVE_CHUNK = 1024
_SEARCH_CHUNK = 64
_WIDE_CODE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class GraphParameters:
    """usearch's parameters. `exact_below`: an index of fewer vectors is scanned, which is as fast as the graph there
    and misses nothing."""

    # Nodes begin at multiples of 64 bytes: 14 links fill two of them, 22 three. Beside codes of full precision the third
    # one is little. Whoever saves memory by small codes shall not spend it on links.
    connectivity: int = 14
    wide_connectivity: int = 22
    # With 64, questions about dictionary glosses find 0.991 of their true best 10 at most, however broad the search; 0.996
    # with 128, and 0.997 with 192, which takes half as long again to build.
    expansion_add: int = 128
    # The least breadth of searches that name none: see kintsugi/ann/breadth.py. Recall@10 on 50k to 100k vectors of 16 intrinsic dimensions
    # is 0.992 with 64, 0.998 with 96, 0.9996 with 128; on bent data of 24 it is 0.984 with 96, 0.991 with 128.
    expansion_search: int = 128
    exact_below: int = 1500

    def links(self, code_bytes: int) -> int:
        """The connectivity of a graph of codes of so many bytes."""
        return self.wide_connectivity if code_bytes >= _WIDE_CODE_BYTES else self.connectivity


@dataclass(frozen=True, slots=True)
class Counters:
    """The state of an index that its file does not tell. `past_last_row` is above every row ever added."""

    size: int
    past_last_row: int
    tombstones: int
    removals: int


@dataclass(slots=True)
class _Turn:
    granted: threading.Lock = field(default_factory=threading.Lock)


class TurnLock:
    """A mutex that serves waiters in the order of their coming. threading.Lock lets a thread that releases and
    re-acquires in a loop starve all others."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[_Turn] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = _Turn()
            turn.granted.acquire()
            self._waiting.append(turn)
        turn.granted.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            if self._waiting:
                # The lock passes on without ever being free: nobody can overtake.
                self._waiting.popleft().granted.release()
            else:
                self._held = False


class VectorIndex:
    """Rows and their encoded vectors, searchable."""

    def __init__(self, encoding: Encoding, parameters: GraphParameters) -> None:
        self.encoding = encoding
        self.parameters = parameters
        self._lock = TurnLock()
        self._index = self._empty()
        self._size = 0
        self._past_last_row = 0
        self._tombstones = 0
        self._removals = 0

    def __len__(self) -> int:
        return self._size

    @property
    def tombstones(self) -> int:
        """Slots of removed rows that no later add has taken over. They cost time and memory."""
        return self._tombstones

    @property
    def removals(self) -> int:
        """Rows removed or replaced since the index was built. Each leaves the graph a little worse."""
        return self._removals

    @property
    def memory_bytes(self) -> int:
        """What codes and links take, slots of removed rows included."""
        slots, code_bytes = self._size + self._tombstones, self.encoding.code_bytes - self.encoding.extra_bytes
        return index_bytes(slots, code_bytes, self._index.connectivity)

    def rows(self) -> Rows:
        """The rows that are there, in no order."""
        with self._lock:
            return np.array(self._index.keys[:], dtype=np.uint64) if self._size else np.empty(0, dtype=np.uint64)

    def contains(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which of the rows are there."""
        with self._lock:
            found = self._index.contains(rows) if len(rows) else np.empty(0, dtype=np.bool_)
        return np.asarray(found, dtype=np.bool_)

    def add(self, rows: Rows, vectors: FloatArray) -> None:
        """Adds rows, replacing those that are there. `rows` holds no duplicates."""
        for start in range(0, len(rows), _ENCODE_CHUNK):
            chunk = rows[start : start + _ENCODE_CHUNK]
            codes = self.encoding.encode(vectors[start : start + _ENCODE_CHUNK])
            for place in range(0, len(chunk), _ADD_CHUNK):
                with self._lock:
                    self._add_chunk(chunk[place : place + _ADD_CHUNK], codes[place : place + _ADD_CHUNK])

    def remove(self, rows: Rows) -> None:
        """Removes those of the rows that are there. `rows` holds no duplicates."""
        for start in range(0, len(rows), _REMOVE_CHUNK):
            with self._lock:
                self._remove_chunk(rows[start : start + _REMOVE_CHUNK])

    def search(self, queries: FloatArray, count: int, breadth: int | None = None) -> list[Rows]:
        """Up to `count` rows nearest to each query, best first by the encoding's own measure. `breadth`: candidates that the
        search of the graph looks at, `count` at least; None for the parameters' own."""
        codes = self.encoding.encode_queries(queries)
        found: list[Rows] = []
        for start in range(0, len(codes), _SEARCH_CHUNK):
            with self._lock:
                found += self._search_chunk(codes[start : start + _SEARCH_CHUNK], count, breadth)
        return found

    def bits(self, rows: Rows) -> Encoded:
        """The codes of rows in an index of bits; zeros for those that are gone."""
        nothing = np.zeros(self.encoding.graph_dimension // 8, dtype=np.uint8)
        with self._lock:
            # Not `get`, which makes a view of each row's code in Python: three times as slow.
            found = self._index._compiled.get_many(rows, self._index.dtype)  # noqa: SLF001 - see above
        codes = [nothing if code is None else code for code in found]
        return np.concatenate([nothing[:0], *codes]).reshape(len(rows), len(nothing))

    def save(self, path: Path) -> Counters:
        """Writes the index and returns its counters of that moment. Does not sync: the caller owns durability."""
        with self._lock:
            self._index.save(str(path))
            return Counters(self._size, self._past_last_row, self._tombstones, self._removals)

    @classmethod
    def load(cls, path: Path, encoding: Encoding, parameters: GraphParameters, counters: Counters) -> "VectorIndex":
        """Reads what `save` wrote. Raises RuntimeError or ValueError when it is something else."""
        loaded = cls(encoding, parameters)
        if counters.size:
            loaded._index.load(str(path))
            # Not part of the file: loading resets them.
            loaded._index.expansion_add = parameters.expansion_add  # type: ignore[misc]  # its setter is invisible to mypy
            loaded._index.expansion_search = parameters.expansion_search  # type: ignore[misc]
        actual = loaded._index
        expected = (counters.size, encoding.graph_dimension)
        if (len(actual), actual.ndim) != expected:
            raise ValueError(f"index file holds {len(actual)} x {actual.ndim}, expected {expected[0]} x {expected[1]}")
        loaded._size = counters.size
        loaded._past_last_row = counters.past_last_row
        loaded._tombstones = counters.tombstones
        loaded._removals = counters.removals
        return loaded

    def _empty(self) -> Index:
        return Index(
            ndim=self.encoding.graph_dimension,
            metric=self.encoding.usearch_metric,
            dtype=self.encoding.usearch_dtype,
            connectivity=self.parameters.links(self.encoding.code_bytes - self.encoding.extra_bytes),
            expansion_add=self.parameters.expansion_add,
            expansion_search=self.parameters.expansion_search,
        )

    def _add_chunk(self, rows: Rows, codes: Encoded) -> None:
        self._remove_chunk(rows)
        self._index.add(rows, codes, copy=True, threads=1)
        self._size += len(rows)
        self._tombstones = max(0, self._tombstones - len(rows))
        self._past_last_row = max(self._past_last_row, int(rows.max()) + 1)

    def _remove_chunk(self, rows: Rows) -> None:
        present = rows[self._index.contains(rows)] if self._size else rows[:0]
        if not len(present):
            return
        self._index.remove(present, threads=1)
        self._size -= len(present)
        self._tombstones += len(present)
        self._removals += len(present)

    def _search_chunk(self, codes: Encoded, count: int, breadth: int | None) -> list[Rows]:
        if not self._size:
            return [np.empty(0, dtype=np.uint64) for _ in codes]
        scan = self._size < self.parameters.exact_below
        self._index.expansion_search = breadth or self.parameters.expansion_search  # type: ignore[misc]
        matches = self._index.search(codes, min(count, self._size), threads=1, exact=scan)
        if not isinstance(matches, BatchMatches):
            # For one query usearch answers in another shape, already cut to what it found.
            return [self._known(matches.keys)]
        if int(matches.counts.min()) == matches.keys.shape[1] and int(matches.keys.max()) < self._past_last_row:
            return list(matches.keys)
        return [self._known(keys[:found]) for keys, found in zip(matches.keys, matches.counts, strict=True)]

    def _known(self, keys: Rows) -> Rows:
        return keys[keys < self._past_last_row]
