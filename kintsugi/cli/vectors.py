"""Reads documents and vectors from files: .npy, .npz and .jsonl. Knows nothing about clusters.

.npy    n x d numbers; ids are 0 to n-1
.npz    `vectors` (n x d) and optionally `ids` (n integers or strings)
.jsonl  one object per line: "id", "vector", and optionally "attributes" (an object) and "text"
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi.errors import InvalidArgument

SUFFIXES = (".npy", ".npz", ".jsonl")
# Lines of a .jsonl that are sent in one go: bounds the memory, whatever the file.
LINES_AT_ONCE = 20_000


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a .jsonl file."""

    id: int | str
    vector: list[float]
    attributes: dict[str, Any] = {}
    text: str = ""


@dataclass(slots=True)
class Batch:
    """Documents to import. `attributes` and `texts` are None when the format has none."""

    ids: list[int | str] | npt.NDArray[Any]
    vectors: npt.NDArray[Any]
    attributes: list[dict[str, Any]] | None = None
    texts: list[str] | None = None


@dataclass(slots=True)
class _Lines:
    ids: list[int | str] = field(default_factory=list)
    vectors: list[list[float]] = field(default_factory=list)
    attributes: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def batch(self) -> Batch:
        return Batch(self.ids, np.array(self.vectors, dtype=np.float32), self.attributes, self.texts)


def read(path: Path) -> Iterator[Batch]:
    """Reads a file; raises InvalidArgument naming the file, and the line where there is one."""
    if path.suffix == ".jsonl":
        yield from _read_lines(path)
        return
    if path.suffix not in SUFFIXES:
        raise InvalidArgument("file", f"is {path.name}", f"must end with {', '.join(SUFFIXES)}")
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InvalidArgument("file", f"{path} cannot be read: {error}") from error
    if isinstance(content, np.ndarray):
        yield Batch(np.arange(len(_checked(path, content)), dtype=np.uint64), content)
        return
    with content:
        if "vectors" not in content:
            raise InvalidArgument("file", f"{path} holds {', '.join(content) or 'nothing'}", "must hold vectors")
        vectors = _checked(path, content["vectors"])
        yield Batch(content["ids"] if "ids" in content else np.arange(len(vectors), dtype=np.uint64), vectors)


def _checked(path: Path, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise InvalidArgument("file", f"{path} holds {vectors.dtype} of shape {vectors.shape}", "must be n x d numbers")
    return vectors


def _read_lines(path: Path) -> Iterator[Batch]:
    lines, dimension = _Lines(), 0
    decoder = msgspec.json.Decoder(Line)
    with path.open("rb") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            line = _parse(decoder, text, f"{path} line {number}")
            dimension = dimension or len(line.vector)
            if len(line.vector) != dimension:
                raise InvalidArgument("vector", f"of {path} line {number} has {len(line.vector)} elements", f"must have {dimension}")  # fmt: skip
            lines.ids.append(line.id)
            lines.vectors.append(line.vector)
            lines.attributes.append(line.attributes)
            lines.texts.append(line.text)
            if len(lines.ids) == LINES_AT_ONCE:
                yield lines.batch()
                lines = _Lines()
    if lines.ids:
        yield lines.batch()


def _parse(decoder: "msgspec.json.Decoder[Line]", text: bytes, place: str) -> Line:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument("file", f"{place} is malformed: {error}") from error


def parse_vector(text: str) -> npt.NDArray[np.float32]:
    """A vector as people type it: numbers between commas or blanks, in brackets or not."""
    try:
        return np.array([float(part) for part in text.strip("[] \n").replace(",", " ").split()], dtype=np.float32)
    except ValueError as error:
        raise InvalidArgument("vector", f"is {text[:60]!r}", "must be numbers separated by commas") from error
