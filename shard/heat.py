"""Which documents recent searches asked for and could not find by a vector of their own: rows with a decaying count. And how
many of their hits had one.

Guarantees: at most `most` rows are remembered, the coldest are forgotten first; noting a search takes microseconds on the
thread that searches; any thread may note and ask. Knows neither vectors nor leases.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.ann.vector_index import Rows

# After so long a search counts half: traffic of the last minutes decides, that of an hour ago hardly.
HALF_LIFE_S: Final = 600.0
MOST_ROWS: Final = 100_000

# Counts grow with time instead of all of them shrinking; they are scaled back before they leave what a float holds.
_LONGEST_S: Final = 100 * HALF_LIFE_S


class Heat:
    """`observe` is told each search, `hottest` gives rows in order."""

    def __init__(self, most: int = MOST_ROWS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[int, float] = {}
        self._began = clock()

    def __len__(self) -> int:
        return len(self._counts)

    def observe(self, rows: Rows) -> None:
        """Counts one search for each of the rows, which lack a vector and were among its candidates."""
        if not len(rows):
            return
        with self._lock:
            weight = self._weight()
            counts = self._counts
            for row in rows.tolist():
                counts[row] = counts.get(row, 0.0) + weight
            # Twice as many before the coldest half goes, so that it is done for many searches at once.
            if len(counts) > 2 * self._most:
                self._keep_hottest()

    def forget(self, rows: Iterable[int]) -> None:
        """Rows that lack nothing any more, or are gone."""
        with self._lock:
            for row in rows:
                self._counts.pop(row, None)

    def hottest(self) -> Rows:
        """The remembered rows, the hottest first; of equals the lower row."""
        with self._lock:
            rows = np.fromiter(self._counts.keys(), np.uint64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float64, len(self._counts))
        return rows[np.lexsort((rows, -counts))][: self._most]

    def _weight(self) -> float:
        age_s = self._clock() - self._began
        if age_s > _LONGEST_S:
            shrink = 0.5 ** (age_s / HALF_LIFE_S)
            scaled = {row: count * shrink for row, count in self._counts.items()}
            # What is so cold that nothing is left of it is forgotten.
            self._counts = {row: count for row, count in scaled.items() if count > 1e-9}
            self._began += age_s
            age_s = 0.0
        return float(2.0 ** (age_s / HALF_LIFE_S))

    def _keep_hottest(self) -> None:
        kept = sorted(self._counts.items(), key=lambda entry: -entry[1])[: self._most]
        self._counts = dict(kept)


@dataclass(frozen=True, slots=True)
class Hits:
    """Of recent searches: all hits, and those whose document has a vector of the searched model."""

    native: int = 0
    all: int = 0


class Traffic:
    """Counts hits; older ones fade, by half in HALF_LIFE_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at = clock()
        self._native = self._all = 0.0

    def observe(self, native: int, hits: int) -> None:
        with self._lock:
            self._fade()
            self._native += native
            self._all += hits

    def recent(self) -> Hits:
        with self._lock:
            self._fade()
            return Hits(round(self._native), round(self._all))

    def _fade(self) -> None:
        now = self._clock()
        left = 0.5 ** ((now - self._at) / HALF_LIFE_S)
        self._native, self._all, self._at = self._native * left, self._all * left, now
