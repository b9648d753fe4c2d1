"""Reads documents and vectors within one read transaction: one consistent state, whatever is written meanwhile.

What it returns are copies and outlives the transaction. Made by Storage.reading(), used by one thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap64

from kintsugi.filters.tree import Filter
from kintsugi.metrics import FloatArray
from shard.attributes.columns import NumberColumns
from shard.attributes.lookup import Lookup, Matches
from shard.attributes.rowset import bitmap_of_rows
from shard.environment import META_STATE, Databases
from shard.journal import Rows
from shard.layout import (
    MAX_KEY_BYTES,
    ROW_BYTES,
    DocumentRecord,
    State,
    decode_document,
    decode_state,
    document_content,
    document_name,
    id_and_row,
    id_key,
    model_prefix,
    number,
    vector_key,
)
from shard.storage_faults import StorageCorrupt
from shard.vector_rows import VectorRows

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fields:
    """What to read beside id and version."""

    attributes: bool = False
    text: bool = False
    vectors: bool = False


NOTHING = Fields()


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """`id` in its ordered encoding. Attributes, text and vectors (raw elements by model) are empty unless asked for."""

    id: bytes
    row: int
    version: int
    written_at_us: int
    attributes: str = ""
    text: str = ""
    vectors: dict[int, bytes] = field(default_factory=dict)

    @property
    def payload_bytes(self) -> int:
        return len(self.id) + len(self.attributes) + len(self.text) + sum(map(len, self.vectors.values()))


@dataclass(frozen=True, slots=True)
class HitColumns:
    """What there is at some rows, in the order asked for. Rows that are gone are left out of every column; attributes
    and texts are empty lists unless asked for."""

    rows: Rows
    ids: list[bytes]
    versions: npt.NDArray[np.uint64]
    attributes: list[str]
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Page:
    """Documents in id order, and whether there are more behind the last one."""

    documents: list[StoredDocument]
    more: bool


@dataclass(frozen=True, slots=True)
class Entries:
    """How many there are, as the sub-databases count them."""

    ids: int
    vectors: int


def find_row(txn: Any, ids: Any, encoded: bytes) -> int | None:
    """The row of an id, None when there is no such document."""
    if len(encoded) < MAX_KEY_BYTES:
        value = txn.get(encoded, None, ids)
        return None if value is None else int.from_bytes(value[-ROW_BYTES:], "big")
    key, mark = id_key(encoded)
    cursor = txn.cursor(ids)
    if not cursor.set_range_dup(key, mark):
        return None
    found, row = id_and_row(bytes(cursor.key()), bytes(cursor.value()))
    return row if found == encoded else None


def find_document(txn: Any, databases: Databases, encoded: bytes) -> DocumentRecord | None:
    """A document by its id. With buffers, its attributes and text are views that end at the next write."""
    row = find_row(txn, databases.ids, encoded)
    if row is None:
        return None
    value = txn.get(number(row), None, databases.documents)
    if value is None:
        raise StorageCorrupt(f"row {row} has an id but no document")
    return decode_document(row, value)


class Reader:
    def __init__(
        self,
        txn: Any,
        databases: Databases,
        dimensions: Mapping[int, int],
        dtype: np.dtype[Any],
        columns: NumberColumns,
        vector_rows: VectorRows,
    ) -> None:
        self._txn = txn
        self._databases = databases
        self._dimensions = dimensions
        self._dtype = dtype
        self._columns = columns
        self._vector_rows = vector_rows

    @property
    def seq(self) -> int:
        """That of the last record in this state."""
        return self.state().seq

    def match(self, condition: Filter) -> Matches:
        """The rows of the documents that fulfil a filter."""
        return self._lookup().match(condition)

    def rows_with(self, model: int) -> Matches:
        """The rows that have a vector of the model."""
        rows = self._vector_rows.rows(model, self._txn.id(), lambda: self._rows_of_model(model))
        return Matches(rows, self.state().seq)

    def rows_lacking(self, model: int) -> Matches:
        """The rows of the documents that have no vector of the model."""
        return self._lookup().everything() - self.rows_with(model)

    def has_vectors(self, model: int, rows: Rows) -> Mask:
        """Which rows have a vector of the model, without reading any."""
        return self.rows_with(model).contains(rows)

    def rows_after(self, row: int, limit: int) -> Rows:
        """The next rows of documents behind a row, ascending."""
        cursor = self._txn.cursor(self._databases.documents)
        if not cursor.set_range(number(row + 1)):
            return np.empty(0, dtype=np.uint64)
        keys = [bytes(key) for key, _ in zip(cursor.iternext(values=False), range(limit), strict=False)]
        return np.frombuffer(b"".join(keys), dtype=">u8").astype(np.uint64)

    def vectors(self, model: int, rows: Rows) -> tuple[Mask, FloatArray]:
        """Which rows have a vector of the model, and a line per row asked for: zeros where there is none."""
        prefix, packed = model_prefix(model), rows.astype(">u8").tobytes()
        get, database = self._txn.get, self._databases.vectors
        values = [get(prefix + packed[at : at + ROW_BYTES], None, database) for at in range(0, len(packed), ROW_BYTES)]
        absent = [at for at, value in enumerate(values) if value is None]
        present = np.ones(len(values), dtype=np.bool_)
        if absent:
            present[absent] = False
            zeros = bytes(self._dimensions[model] * self._dtype.itemsize)
            values = [zeros if value is None else value for value in values]
        return present, self._matrix(values, model)

    def vectors_after(self, model: int, row: int, limit: int) -> tuple[Rows, FloatArray]:
        """The next vectors of a model behind a row, in row order."""
        cursor = self._txn.cursor(self._databases.vectors)
        prefix = model_prefix(model)
        rows: list[int] = []
        values: list[Any] = []
        if cursor.set_range(vector_key(model, row + 1)):
            for key, value in cursor.iternext():
                if key[:2] != prefix or len(rows) == limit:
                    break
                rows.append(int.from_bytes(key[2:], "big"))
                values.append(value)
        return np.array(rows, dtype=np.uint64), self._matrix(values, model)

    def hits(self, rows: Rows, fields: Fields = NOTHING) -> HitColumns:
        get, database = self._txn.get, self._databases.documents
        packed = rows.astype(">u8").tobytes()
        values = [get(packed[at : at + ROW_BYTES], None, database) for at in range(0, len(packed), ROW_BYTES)]
        absent = [at for at, value in enumerate(values) if value is None]
        if absent:
            rows = np.delete(rows, absent)
            values = [value for value in values if value is not None]
        names = [document_name(value) for value in values]
        contents = [document_content(value) for value in values] if fields.attributes or fields.text else []
        return HitColumns(
            rows=rows,
            ids=[name for name, _ in names],
            versions=np.array([version for _, version in names], dtype=np.uint64),
            attributes=[str(attributes, "utf-8") for attributes, _ in contents] if fields.attributes else [],
            texts=[str(text, "utf-8") for _, text in contents] if fields.text else [],
        )

    def state(self) -> State:
        """What changes with every batch, the position among it."""
        return decode_state(self._txn.get(META_STATE, None, self._databases.meta))

    def entries(self) -> Entries:
        ids, vectors = (self._txn.stat(one)["entries"] for one in (self._databases.ids, self._databases.vectors))
        return Entries(int(ids), int(vectors))

    def documents_after(self, row: int, limit: int) -> list[DocumentRecord]:
        """The next documents behind a row, in row order. Their attributes and texts are views that end with the
        transaction."""
        cursor = self._txn.cursor(self._databases.documents)
        if not cursor.set_range(number(row + 1)):
            return []
        found = zip(cursor.iternext(), range(limit), strict=False)
        return [decode_document(int.from_bytes(key, "big"), value) for (key, value), _ in found]

    def check_row(self, document: DocumentRecord) -> None:
        """Raises StorageCorrupt unless the document's id leads to it."""
        if find_row(self._txn, self._databases.ids, document.id) != document.row:
            raise StorageCorrupt(f"the id of the document in row {document.row} does not lead there")

    def vector(self, model: int, row: int) -> memoryview:
        """The elements of a vector that must be there, as a view that ends with the transaction."""
        value: memoryview | None = self._txn.get(vector_key(model, row), None, self._databases.vectors)
        if value is None:
            raise StorageCorrupt(f"row {row} lacks its vector of model {model}")
        return value

    def get(self, ids: Sequence[bytes], fields: Fields = NOTHING) -> list[StoredDocument | None]:
        """The documents in the order of the ids, None for those that do not exist."""
        found = (find_document(self._txn, self._databases, encoded) for encoded in ids)
        return [None if document is None else self._stored(document, fields) for document in found]

    def scroll(self, after: bytes, limit: int, fields: Fields, max_bytes: int) -> Page:
        """The next documents in id order behind `after`; at least one, fewer than `limit` when they are large."""
        documents: list[StoredDocument] = []
        size = 0
        cursor = self._txn.cursor(self._databases.ids)
        if not self._seek_behind(cursor, after):
            return Page(documents, more=False)
        for key, value in cursor.iternext():
            if len(documents) == limit or size > max_bytes:
                return Page(documents, more=True)
            encoded, row = id_and_row(bytes(key), bytes(value))
            raw = self._txn.get(number(row), None, self._databases.documents)
            if raw is None:
                raise StorageCorrupt(f"row {row} has an id but no document")
            document = self._stored(decode_document(row, raw), fields)
            if document.id != encoded:
                raise StorageCorrupt(f"row {row} has two ids")
            documents.append(document)
            size += document.payload_bytes
        return Page(documents, more=False)

    def _seek_behind(self, cursor: Any, after: bytes) -> bool:
        """Moves to the first id behind `after`."""
        if not after:
            return bool(cursor.first())
        key, mark = id_key(after)
        if not cursor.set_range(key):
            return False
        if bytes(cursor.key()) != key:
            return True
        # Rows are above 0, so this is behind every smaller mark and before the entry of `after` itself.
        if not cursor.set_range_dup(key, mark):
            return bool(cursor.set_key(key) and cursor.next_nodup())
        found, _ = id_and_row(key, bytes(cursor.value()))
        return bool(cursor.next()) if found == after else True

    def _stored(self, document: DocumentRecord, fields: Fields) -> StoredDocument:
        vectors: dict[int, bytes] = {}
        if fields.vectors:
            vectors = {model: bytes(self.vector(model, document.row)) for model in document.models}
        return StoredDocument(
            id=document.id,
            row=document.row,
            version=document.version,
            written_at_us=document.written_at_us,
            attributes=str(document.attributes, "utf-8") if fields.attributes else "",
            text=str(document.text, "utf-8") if fields.text else "",
            vectors=vectors,
        )

    def _lookup(self) -> Lookup:
        return Lookup(self._txn, self._databases, self._columns, self.state().seq)

    def _rows_of_model(self, model: int) -> BitMap64:
        cursor = self._txn.cursor(self._databases.vectors)
        prefix = model_prefix(model)
        keys: list[bytes] = []
        if cursor.set_range(prefix):
            keys = [bytes(key) for key in takewhile(lambda key: key[:2] == prefix, cursor.iternext(values=False))]
        return bitmap_of_rows(np.array([key[2:] for key in keys], dtype="V8").view(">u8").astype(np.uint64))

    def _matrix(self, values: list[Any], model: int) -> FloatArray:
        dimension = self._dimensions[model]
        data = b"".join(values)
        if len(data) != len(values) * dimension * self._dtype.itemsize:
            raise StorageCorrupt(f"vectors of model {model} do not have {dimension} elements each")
        return np.frombuffer(data, dtype=self._dtype).reshape(len(values), dimension)
