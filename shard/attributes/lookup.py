"""The rows that fulfil a filter, in the state of one read transaction. Means what kintsugi.filters.matching means.

Knows no documents: everything is answered from postings and columns.
"""

from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap64

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.matching import decisive
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Range, Value
from shard.attributes.column import Column, Interval
from shard.attributes.columns import NumberColumns
from shard.attributes.layout import (
    BLOCK_BITS,
    BOOLEAN,
    CHUNK_BYTES,
    DOCUMENTS,
    NUMBER_BYTES,
    PAIR_DTYPE,
    PRESENCE,
    STRING,
    block_of,
    chunk_of,
    is_cut,
    kind_prefix,
    number_bytes,
    posting_prefix,
)
from shard.attributes.names import find_number
from shard.attributes.rowset import bitmap_of_chunks, container_bytes, rows_of, union
from shard.attributes.terms import boolean_text
from shard.attributes.text_range import TextRange
from shard.environment import Databases

Mask = npt.NDArray[np.bool_]

# A look into the bitmap takes as long as listing so many of its rows.
_ROWS_PER_LOOKUP = 60


class Matches:
    """The rows of the documents that fulfil a filter, as they were after the record `seq`."""

    def __init__(self, bitmap: BitMap64, seq: int) -> None:
        self._bitmap = bitmap
        self._rows: Rows | None = None
        self.seq = seq

    def __len__(self) -> int:
        return len(self._bitmap)

    def rows(self) -> Rows:
        """Ascending."""
        if self._rows is None:
            self._rows = rows_of(self._bitmap)
        return self._rows

    def contains(self, rows: Rows) -> Mask:
        """Which of some rows, in any order, are among them."""
        if self._rows is None and len(rows) * _ROWS_PER_LOOKUP < len(self):
            return np.fromiter(map(self._bitmap.__contains__, rows.tolist()), np.bool_, len(rows))
        own = self.rows()
        if not len(own):
            return np.zeros(len(rows), dtype=np.bool_)
        places = np.minimum(np.searchsorted(own, rows), len(own) - 1)
        found: Mask = own[places] == rows
        return found

    def is_same(self, other: "Matches") -> bool:
        """Whether both are the same for sure: one set, not two equal ones."""
        return self._bitmap is other._bitmap  # noqa: SLF001 - the other is of the same kind

    def __and__(self, other: "Matches") -> "Matches":
        """The rows that are in both, of one state."""
        return Matches(self._bitmap & other._bitmap, self.seq)

    def __sub__(self, other: "Matches") -> "Matches":
        """The rows that are here only, of one state."""
        return Matches(self._bitmap - other._bitmap, self.seq)


class Lookup:
    """For one read transaction, which stands at `seq`."""

    def __init__(self, txn: Any, databases: Databases, columns: NumberColumns, seq: int) -> None:
        self._txn = txn
        self._databases = databases
        self._columns = columns
        self._seq = seq

    def match(self, condition: Filter) -> Matches:
        return Matches(self._rows(condition), self._seq)

    def everything(self) -> Matches:
        """The rows of all documents."""
        return Matches(self._posting(DOCUMENTS, PRESENCE), self._seq)

    def _rows(self, condition: Filter) -> BitMap64:
        match condition:
            case AllOf(filters):
                return self._all(filters)
            case AnyOf(filters):
                return reduce(BitMap64.union, map(self._rows, filters))
            case Not(negated):
                return self._posting(DOCUMENTS, PRESENCE) - self._rows(negated)
        number = find_number(self._txn, self._databases.names, condition.attribute)
        if number is None:
            return BitMap64()
        match condition:
            case Exists():
                return self._posting(number, PRESENCE)
            case Equals(value=value):
                return self._one_of(number, [value])
            case OneOf(values=values):
                return self._one_of(number, values)
            case Range():
                return self._range(number, condition)

    def _all(self, filters: tuple[Filter, ...]) -> BitMap64:
        found = self._rows(filters[0])
        for one in filters[1:]:
            if not found:
                break
            found &= self._rows(one)
        return found

    def _one_of(self, attribute: int, values: "tuple[Value, ...] | list[Value]") -> BitMap64:
        found = BitMap64()
        numbers = [value for value in values if isinstance(value, float)]
        if numbers:
            found |= self._column(attribute).equal_to(np.unique(np.array(numbers, dtype=np.float64)))
        for value in values:
            if isinstance(value, bool):
                found |= self._posting(attribute, BOOLEAN, boolean_text(value))
            elif isinstance(value, str):
                found |= self._posting(attribute, STRING, decisive(value))
        return found

    def _range(self, attribute: int, condition: Range) -> BitMap64:
        kinds = {type(bound) for bound in condition.bounds.values()}
        if kinds == {float}:
            return self._column(attribute).within(_interval(condition))
        if kinds == {str}:
            return self._texts_within(attribute, TextRange(condition))
        return BitMap64()

    def _posting(self, attribute: int, kind: int, text: bytes = b"") -> BitMap64:
        """The rows of one posting."""
        prefix = posting_prefix(attribute, kind, text)
        size = len(prefix)
        chunks, values = [], []
        cursor = self._txn.cursor(self._databases.postings)
        if cursor.set_range(prefix):
            for key, value in cursor.iternext():
                if key[:size] != prefix:
                    break
                chunks.append(chunk_of(key))
                values.append(value)
        return bitmap_of_chunks(chunks, values) if chunks else BitMap64()

    def _texts_within(self, attribute: int, texts: TextRange) -> BitMap64:
        """The rows of all texts in a range."""
        prefix = kind_prefix(attribute, STRING)
        stop = prefix + texts.stop if texts.stop else kind_prefix(attribute, STRING + 1)
        chunks: list[bytes] = []
        values: list[bytes] = []
        cursor = self._txn.cursor(self._databases.postings)
        if cursor.set_range(prefix + texts.start):
            for view, value in cursor.iternext():
                key = bytes(view)
                if key >= stop:
                    break
                container = bytes(value)
                if is_cut(key):
                    size = container_bytes(value)
                    container, rest = container[:size], container[size:]
                    if not texts.holds(key, rest):
                        continue
                chunks.append(key[-CHUNK_BYTES:])
                values.append(container)
        return union(chunks, values)

    def _column(self, attribute: int) -> Column:
        return self._columns.column(attribute, self._seq, lambda: self._read_column(attribute))

    def _read_column(self, attribute: int) -> Column:
        prefix = number_bytes(attribute)
        blocks: list[int] = []
        values: list[memoryview] = []
        cursor = self._txn.cursor(self._databases.numbers)
        if cursor.set_range(prefix):
            for key, value in cursor.iternext():
                if key[:NUMBER_BYTES] != prefix:
                    break
                blocks.append(block_of(key))
                values.append(value)
        pairs = np.frombuffer(b"".join(values), dtype=PAIR_DTYPE)
        counts = [len(value) // PAIR_DTYPE.itemsize for value in values]
        bases = np.repeat(np.array(blocks, dtype=np.uint64) << np.uint64(BLOCK_BITS), counts)
        return Column.of(pairs["number"], bases + pairs["row"])


def _interval(condition: Range) -> Interval:
    def bound(value: object, otherwise: float) -> float:
        return value if isinstance(value, float) else otherwise

    # Of two bounds on one side the stricter one counts.
    low = max(bound(condition.above, -np.inf), bound(condition.at_least, -np.inf))
    high = min(bound(condition.below, np.inf), bound(condition.at_most, np.inf))
    return Interval(low, high, low_open=condition.above == low, high_open=condition.below == high)
