"""Documents from numpy files.

.npy    n x d numbers; ids are 0 to n-1, or those of NAME.ids.npy beside NAME.npy
.npz    `vectors` (n x d) and optionally `ids` (n integers or strings), `attributes` (n JSON objects as strings) and
        `texts` (n strings)

A .npy is mapped, not loaded; the arrays of a .npz are loaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.errors import InvalidArgument
from kintsugi.sdk.files.fingerprint import fingerprint
from kintsugi.sdk.files.source import Cursor, ImportBatch, Rejected

_KINDS = {"ids": "iuU", "attributes": "U", "texts": "U"}
_WORDS = {"ids": "integers or strings", "attributes": "JSON objects as strings", "texts": "strings"}


def ids_path(path: Path) -> Path:
    """The file of ids beside a .npy."""
    return path.with_name(f"{path.stem}.ids.npy")


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """Documents in arrays. `columns` may hold ids, attributes and texts."""

    name: str
    fingerprint: str
    vectors: npt.NDArray[Any]
    columns: dict[str, npt.NDArray[Any]]

    @property
    def length(self) -> int:
        return len(self.vectors)

    def where(self, place: int) -> str:
        return f"row {place}"

    def read(self, start: Cursor, size: int, dimension: int) -> Iterator[ImportBatch]:
        if self.vectors.shape[1] != dimension:
            raise InvalidArgument(
                "vectors", f"of {self.name} have {self.vectors.shape[1]} elements", f"must have {dimension}"
            )
        for first in range(start.place, self.length, size):
            yield self._batch(first, min(first + size, self.length))

    def _batch(self, first: int, end: int) -> ImportBatch:
        columns = {name: column[first:end] for name, column in self.columns.items()}
        ids = columns.get("ids", np.arange(first, end, dtype=np.uint64))
        places, attributes, rejected = list(range(first, end)), None, []
        if "attributes" in columns:
            attributes = []
            for place, text in zip(range(first, end), columns["attributes"].tolist(), strict=True):
                try:
                    attributes.append(_decode_attributes(text))
                except msgspec.DecodeError as error:
                    places.remove(place)
                    message = f"attributes are no JSON object: {error}"
                    rejected.append(Rejected(place, self.where(place), ids[place - first].item(), message))
        kept = [place - first for place in places]
        texts = columns["texts"][kept].tolist() if "texts" in columns else None
        vectors = self.vectors[first:end] if not rejected else self.vectors[first:end][kept]
        return ImportBatch(
            Cursor(first, first), Cursor(end, end), places, ids[kept], vectors, attributes, texts, tuple(rejected)
        )


def _decode_attributes(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any]) if text else {}


def open_arrays(path: Path) -> ArraySource:
    """Opens a .npy or .npz. Raises InvalidArgument naming the file and the array."""
    content = _load(path)
    if isinstance(content, np.ndarray):
        vectors, columns, files = content, {}, [path]
        if ids_path(path).exists():
            columns["ids"] = _load(ids_path(path))
            files.append(ids_path(path))
    else:
        with content:
            if "vectors" not in content:
                raise InvalidArgument("file", f"{path} holds {', '.join(content) or 'nothing'}", "must hold vectors")
            vectors, files = content["vectors"], [path]
            columns = {name: content[name] for name in _KINDS if name in content}
    _check(path, vectors, columns)
    return ArraySource(str(path), fingerprint(*files), vectors, columns)


def _load(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InvalidArgument("file", f"{path} cannot be read: {error}") from error


def _check(path: Path, vectors: npt.NDArray[Any], columns: dict[str, npt.NDArray[Any]]) -> None:
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise InvalidArgument("file", f"{path} holds {vectors.dtype} of shape {vectors.shape}", "must be n x d numbers")
    for name, column in columns.items():
        if column.ndim != 1 or column.dtype.kind not in _KINDS[name]:
            raise InvalidArgument(
                name, f"of {path} are {column.dtype} of shape {column.shape}", f"must be n {_WORDS[name]}"
            )
        if len(column) != len(vectors):
            raise InvalidArgument(name, f"of {path} have {len(column)} entries", f"must have {len(vectors)}")
