"""The numbers of one attribute in one state of the database, sorted for ranges. Immutable: a change makes a new column.

What changed since the column was sorted is kept aside, unsorted, until there is enough of it to be worth sorting again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap64

from kintsugi.ann.vector_index import Rows
from shard.attributes.rowset import bitmap_of_rows, rows_of

Numbers = npt.NDArray[np.float64]

# A share of the sorted part, so that sorting costs each change about the same however large the column is.
_MIN_ASIDE: Final = 8192
_ASIDE_SHARE: Final = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of numbers; an open end does not hold its bound."""

    low: float = -np.inf
    high: float = np.inf
    low_open: bool = False
    high_open: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """`numbers` ascending and the row of each, but for the rows in `changed`, whose numbers are in `fresh_numbers`."""

    numbers: Numbers
    rows: Rows
    changed: BitMap64 = field(default_factory=BitMap64)
    fresh_numbers: Numbers = field(default_factory=lambda: np.empty(0, dtype=np.float64))
    fresh_rows: Rows = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    @classmethod
    def of(cls, numbers: Numbers, rows: Rows) -> "Column":
        """Of pairs in any order."""
        # Stable: two sorted runs in a row, as after changes, are merged in linear time.
        order = np.argsort(numbers, kind="stable")
        return cls(numbers[order], rows[order])

    @property
    def bytes(self) -> int:
        arrays = (self.numbers, self.rows, self.fresh_numbers, self.fresh_rows)
        return sum(array.nbytes for array in arrays) + 8 * len(self.changed)

    def within(self, interval: Interval) -> BitMap64:
        """The rows with a number in the interval."""
        first = int(np.searchsorted(self.numbers, interval.low, "right" if interval.low_open else "left"))
        last = int(np.searchsorted(self.numbers, interval.high, "left" if interval.high_open else "right"))
        fresh = self.fresh_numbers
        above = fresh > interval.low if interval.low_open else fresh >= interval.low
        below = fresh < interval.high if interval.high_open else fresh <= interval.high
        return self._joined(self.rows[first : max(first, last)], above & below)

    def equal_to(self, wanted: Numbers) -> BitMap64:
        """The rows with one of the numbers."""
        firsts = np.searchsorted(self.numbers, wanted, "left").tolist()
        lasts = np.searchsorted(self.numbers, wanted, "right").tolist()
        slices = [self.rows[first:last] for first, last in zip(firsts, lasts, strict=True)]
        return self._joined(np.concatenate(slices), np.isin(self.fresh_numbers, wanted))

    def changed_by(self, by_row: Mapping[int, tuple[float, ...]]) -> "Column":
        """The column after rows got other numbers."""
        touched = np.fromiter(by_row, dtype=np.uint64, count=len(by_row))
        kept = ~np.isin(self.fresh_rows, touched)
        counts = np.fromiter(map(len, by_row.values()), dtype=np.int64, count=len(by_row))
        new = np.fromiter((one for values in by_row.values() for one in values), dtype=np.float64)
        column = Column(
            self.numbers,
            self.rows,
            self.changed | bitmap_of_rows(touched),
            np.concatenate([self.fresh_numbers[kept], new]),
            np.concatenate([self.fresh_rows[kept], np.repeat(touched, counts)]),
        )
        aside = len(column.changed) + len(column.fresh_rows)
        return column if aside <= max(_MIN_ASIDE, len(self.rows) // _ASIDE_SHARE) else column._sorted()

    def _sorted(self) -> "Column":
        kept = ~np.isin(self.rows, rows_of(self.changed))
        order = np.argsort(self.fresh_numbers, kind="stable")
        return Column.of(
            np.concatenate([self.numbers[kept], self.fresh_numbers[order]]),
            np.concatenate([self.rows[kept], self.fresh_rows[order]]),
        )

    def _joined(self, rows: Rows, fresh: npt.NDArray[np.bool_]) -> BitMap64:
        found = bitmap_of_rows(rows)
        if self.changed:
            found -= self.changed
            found |= bitmap_of_rows(self.fresh_rows[fresh])
        return found
