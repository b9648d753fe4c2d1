"""Writes spooled documents as a file that the import reads again: .npy, .npz, .jsonl or .parquet.

Guarantees that the file appears whole or not at all, and that memory is bounded by the columns of text of a .npz.
"""

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.ids import DocId
from kintsugi.sdk.files.arrays import ids_path
from kintsugi.sdk.files.parquet import pyarrow
from kintsugi.sdk.files.spool import Spool, SpooledDocument

# numpy pads every text of an array to the longest; beyond this a .npz is the wrong format.
_MAX_TEXT_ARRAY_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a spool: `documents` of them, vectors of `dimension` numbers of type `dtype`, and which fields."""

    spool: Spool
    documents: int
    dimension: int
    dtype: str
    attributes: bool
    text: bool

    def each(self) -> Iterator[SpooledDocument]:
        for page in self.spool.pages():
            yield from page

    def vectors(self, page: list[SpooledDocument]) -> npt.NDArray[Any]:
        data = b"".join(document.vector for document in page)
        return np.frombuffer(data, dtype=self.dtype).reshape(len(page), self.dimension)


def outputs(path: Path) -> tuple[Path, ...]:
    """The files that an export to `path` makes."""
    return (path, ids_path(path)) if path.suffix == ".npy" else (path,)


def check_target(path: Path) -> None:
    """Refuses, before anything is read, what could not be written."""
    if path.suffix not in _WRITERS:
        raise InvalidArgument("file", f"is {path.name}", f"must end with {', '.join(_WRITERS)}")
    if not path.parent.is_dir():
        raise InvalidArgument("file", f"{path} is in a folder that does not exist")
    if path.suffix == ".parquet":
        pyarrow()


def write(path: Path, content: Content) -> None:
    _WRITERS[path.suffix](path, content)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes its name when it is complete."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_lines(path: Path, content: Content) -> None:
    with _replacing(path) as stream:
        for page in content.spool.pages():
            for document, vector in zip(page, content.vectors(page).tolist(), strict=True):
                line: dict[str, Any] = {"id": document.id, "vector": vector}
                if content.attributes:
                    line["attributes"] = msgspec.Raw(document.attributes)
                if content.text:
                    line["text"] = document.text
                stream.write(msgspec.json.encode(line) + b"\n")


def _write_npy(path: Path, content: Content) -> None:
    # The ids first: vectors without them would be taken for documents 0 to n-1.
    with _replacing(ids_path(path)) as stream:
        np.lib.format.write_array(stream, _ids(content), allow_pickle=False)
    with _replacing(path) as stream:
        _write_vectors(stream, content)


def _write_npz(path: Path, content: Content) -> None:
    columns = {"ids": _ids(content)}
    if content.attributes:
        columns["attributes"] = _texts("attributes", [document.attributes.decode() for document in content.each()])
    if content.text:
        columns["texts"] = _texts("texts", [document.text for document in content.each()])
    with _replacing(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, column, allow_pickle=False)
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            _write_vectors(member, content)


def _write_vectors(stream: Any, content: Content) -> None:
    shape = (content.documents, content.dimension)
    header = {"descr": content.dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for page in content.spool.pages():
        stream.write(content.vectors(page).tobytes())


def _ids(content: Content) -> npt.NDArray[Any]:
    ids = [document.id for document in content.each()]
    _one_kind(ids)
    return np.array(ids, dtype=np.uint64) if not ids or isinstance(ids[0], int) else np.array(ids)


def _one_kind(ids: list[DocId]) -> None:
    if len({type(doc_id) for doc_id in ids}) > 1:
        raise FailedPrecondition(
            "the collection has integer and string ids, which no column can hold; export to .jsonl",
            reason="IDS_OF_TWO_KINDS",
        )


def _texts(name: str, texts: list[str]) -> npt.NDArray[np.str_]:
    size = 4 * len(texts) * max(map(len, texts), default=0)
    if size > _MAX_TEXT_ARRAY_BYTES:
        raise FailedPrecondition(
            f"{name} would take {size / 2**30:.1f} GiB as an array; export to .parquet or .jsonl, or leave them out",
            reason="TEXTS_TOO_LONG",
        )
    return np.array(texts, dtype=np.str_)


def _write_parquet(path: Path, content: Content) -> None:
    arrow = pyarrow()
    ids = [document.id for document in content.each()]
    _one_kind(ids)
    kind = arrow.string() if ids and isinstance(ids[0], str) else arrow.uint64()
    del ids
    element = arrow.from_numpy_dtype(np.dtype(content.dtype))
    fields = [("id", kind), ("vector", arrow.list_(element, content.dimension))]
    fields += [("attributes", arrow.string())] if content.attributes else []
    fields += [("text", arrow.string())] if content.text else []
    schema = arrow.schema(fields)
    with _replacing(path) as stream, arrow.parquet.ParquetWriter(stream, schema) as writer:
        for page in content.spool.pages():
            flat = arrow.array(content.vectors(page).ravel(), type=element)
            columns = {
                "id": arrow.array([document.id for document in page], type=kind),
                "vector": arrow.FixedSizeListArray.from_arrays(flat, content.dimension),
                "attributes": [document.attributes.decode() for document in page],
                "text": [document.text for document in page],
            }
            rows = arrow.RecordBatch.from_arrays([arrow.array(columns[name]) for name, _ in fields], schema=schema)
            writer.write_batch(rows)


_WRITERS: dict[str, Callable[[Path, Content], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".jsonl": _write_lines,
    ".parquet": _write_parquet,
}
