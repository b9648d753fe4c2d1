"""Documents from a .jsonl file: one object per line with "id", "vector", and optionally "attributes" and "text".

A malformed line is rejected by its number; the others are read. Memory is bounded by the size of a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kintsugi.ids import DocId
from kintsugi.sdk.files.fingerprint import fingerprint
from kintsugi.sdk.files.source import Cursor, ImportBatch, Rejected


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line."""

    id: int | str
    vector: list[float]
    attributes: dict[str, Any] = {}
    text: str = ""


class _OnlyId(msgspec.Struct):
    """What a rejected line may still tell."""

    id: int | str | None = None


@dataclass(slots=True)
class _Collected:
    """The lines of a batch so far."""

    dimension: int
    places: list[int] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def batch(self, first: Cursor, end: Cursor) -> ImportBatch:
        lines = self.lines
        vectors = np.array([line.vector for line in lines], dtype=np.float32).reshape(len(lines), self.dimension)
        return ImportBatch(
            first, end, self.places, [line.id for line in lines], vectors,
            [line.attributes for line in lines], [line.text for line in lines], tuple(self.rejected),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LineSource:
    """The lines of a file; a place is the number of a line from 0, an offset its byte."""

    path: Path
    fingerprint: str
    length: int

    @property
    def name(self) -> str:
        return str(self.path)

    def where(self, place: int) -> str:
        return f"line {place + 1}"

    def read(self, start: Cursor, size: int, dimension: int) -> Iterator[ImportBatch]:
        decoder = msgspec.json.Decoder(Line)
        with self.path.open("rb") as stream:
            stream.seek(start.offset)
            first = here = start
            collected = _Collected(dimension)
            for text in stream:
                if text.strip():
                    self._add(collected, decoder, text, here.place)
                here = Cursor(here.place + 1, here.offset + len(text))
                if here.place - first.place == size:
                    yield collected.batch(first, here)
                    first, collected = here, _Collected(dimension)
            if here != first:
                yield collected.batch(first, here)

    def _add(self, collected: _Collected, decoder: "msgspec.json.Decoder[Line]", text: bytes, place: int) -> None:
        try:
            line = decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            collected.rejected.append(Rejected(place, self.where(place), _id_of(text), f"is malformed: {error}"))
            return
        if len(line.vector) != collected.dimension:
            message = f"vector has {len(line.vector)} elements, must have {collected.dimension}"
            collected.rejected.append(Rejected(place, self.where(place), line.id, message))
            return
        collected.places.append(place)
        collected.lines.append(line)


def _id_of(text: bytes) -> DocId | None:
    try:
        return msgspec.json.decode(text, type=_OnlyId).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def open_lines(path: Path) -> LineSource:
    return LineSource(path, fingerprint(path), path.stat().st_size)
