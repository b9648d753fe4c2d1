"""Documents from and to .parquet files, with pyarrow from the extra `parquet`.

Columns: `id` (integers or strings), `vector` (a list of numbers), and optionally `attributes` (a struct, or a JSON
object as string) and `text` (string). Other columns are not read.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.sdk.files.fingerprint import fingerprint
from kintsugi.sdk.files.source import Cursor, ImportBatch, Rejected

COLUMNS = ("id", "vector", "attributes", "text")


def pyarrow() -> Any:
    """The package with its parquet and compute; FailedPrecondition when the extra is not installed."""
    try:
        for module in ("pyarrow.compute", "pyarrow.parquet"):
            importlib.import_module(module)
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise FailedPrecondition(
            "reading and writing .parquet needs pyarrow; install kintsugi-search[parquet]",
            reason="PARQUET_NOT_INSTALLED",
        ) from error


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """The rows of a file, read one row group after the other."""

    path: Path
    fingerprint: str
    length: int
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.path)

    def where(self, place: int) -> str:
        return f"row {place}"

    def read(self, start: Cursor, size: int, dimension: int) -> Iterator[ImportBatch]:
        """Batches end where row groups end, so that a group is cut the same way from any of its batches on."""
        with pyarrow().parquet.ParquetFile(self.path) as file:
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if first + rows > start.place:
                    for table in file.iter_batches(batch_size=size, row_groups=[group], columns=self.columns):
                        if first >= start.place:
                            yield self._batch(table, first, dimension)
                        first += table.num_rows
                else:
                    first += rows

    def _batch(self, table: Any, first: int, dimension: int) -> ImportBatch:
        kept, vectors, attributes, rejected = [], [], [], []
        columns = {name: table.column(name).to_pylist() for name in self.columns if name != "vector"}
        for i, vector in enumerate(_vectors(table.column("vector"))):
            doc_id = columns["id"][i]
            try:
                _check(doc_id, vector, dimension)
                attributes.append(_attributes(columns["attributes"][i]) if "attributes" in columns else {})
            except InvalidArgument as error:
                rejected.append(Rejected(first + i, self.where(first + i), doc_id, error.message))
            else:
                kept.append(i)
                vectors.append(vector)
        return ImportBatch(
            first=Cursor(first, first),
            next=Cursor(first + table.num_rows, first + table.num_rows),
            places=[first + i for i in kept],
            ids=[columns["id"][i] for i in kept],
            vectors=np.array(vectors, dtype=np.float32).reshape(len(kept), dimension),
            attributes=attributes if "attributes" in columns else None,
            texts=[columns["text"][i] or "" for i in kept] if "text" in columns else None,
            rejected=tuple(rejected),
        )


def _vectors(column: Any) -> list[Any]:
    """One array per row, None where it is null; without a Python object per number."""
    flat = column.flatten()
    if flat.null_count or column.null_count:
        return [None if row is None or None in row else np.array(row) for row in column.to_pylist()]
    numbers = flat.to_numpy(zero_copy_only=False)
    lengths = pyarrow().compute.list_value_length(column).to_numpy(zero_copy_only=False)
    return np.split(numbers, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _check(doc_id: object, vector: Any, dimension: int) -> None:
    if doc_id is None:
        raise InvalidArgument("id", "is null")
    if vector is None:
        raise InvalidArgument("vector", "is null or holds nulls")
    if len(vector) != dimension:
        raise InvalidArgument("vector", f"has {len(vector)} elements", f"must have {dimension}")


def _attributes(value: Any) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise InvalidArgument("attributes", f"are no JSON object: {error}") from error
    return {name: item for name, item in value.items() if item is not None}


def open_parquet(path: Path) -> ParquetSource:
    arrow = pyarrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (arrow.ArrowInvalid, OSError) as error:
        raise InvalidArgument("file", f"{path} cannot be read: {error}") from error
    for name in ("id", "vector"):
        if name not in schema.names:
            raise InvalidArgument("file", f"{path} has the columns {', '.join(schema.names)}", f"must have {name}")
    _check_types(path, schema, arrow.types)
    return ParquetSource(path, fingerprint(path), rows, tuple(name for name in COLUMNS if name in schema.names))


def _check_types(path: Path, schema: Any, types: Any) -> None:
    kind = schema.field("id").type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise InvalidArgument("id", f"of {path} is {kind}", "must be integers or strings")
    kind = schema.field("vector").type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not is_list or not (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
        raise InvalidArgument("vector", f"of {path} is {kind}", "must be lists of numbers")
    if "attributes" in schema.names:
        kind = schema.field("attributes").type
        if not (types.is_struct(kind) or types.is_string(kind) or types.is_large_string(kind)):
            raise InvalidArgument("attributes", f"of {path} is {kind}", "must be a struct or JSON as string")
    if "text" in schema.names:
        kind = schema.field("text").type
        if not (types.is_string(kind) or types.is_large_string(kind)):
            raise InvalidArgument("text", f"of {path} is {kind}", "must be strings")
