"""Digests all that a replica holds, so that replicas can be compared, and draws some of its vectors on the way.

1. The digest is the sum of the SHA-256 of every document (id, version, time, attributes, text, vectors) modulo 2^256: it
   depends neither on rows nor on the layout of the database, so replicas on neighbouring releases agree.
2. All is read in one transaction, and is true at the position it returns. A transaction keeps the pages that writes
   free meanwhile from being used again, so this is for checks that somebody asks for, not for routine.
3. Vectors of models that are given up do not count: one replica has dropped more of them than another.
4. What the sub-databases say of each other is compared on the way: StorageCorrupt when it does not fit.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kintsugi.metrics import FloatArray
from kintsugi.position import Position
from shard.layout import DocumentRecord, model_prefix
from shard.reader import Reader
from shard.storage import Storage
from shard.storage_faults import StorageCorrupt

DIGEST_BYTES = 32

_DOCUMENTS_PER_STEP = 128
# version, written at, bytes of the id, of the attributes and of the text, number of vectors
_HEADER = struct.Struct(">QQIIII")
_LENGTH = struct.Struct(">I")
_SEED = 1


@dataclass(frozen=True, slots=True)
class Content:
    """What a replica held at a position. `drawn` are stored vectors of the model asked for, spread evenly over the rows:
    the same ones whenever the same content is digested."""

    position: Position
    digest: bytes
    documents: int
    drawn: FloatArray


def digest_content(storage: Storage, model: int, draws: int, between: Callable[[], None]) -> Content:
    """`draws` vectors of `model` are returned, or all when there are fewer. `between` is called after each piece of work
    and may raise."""
    retired = storage.retired_models
    with storage.reading() as reader:
        state = reader.state()
        drawing = _Drawing(state.vectors.get(model, 0), draws)
        total = documents = vectors = row = 0
        while records := reader.documents_after(row, _DOCUMENTS_PER_STEP):
            for record in records:
                total += int.from_bytes(_digest(reader, record, retired), "big")
                if model in record.models and drawing.wants_next():
                    drawing.take(reader, model, record.row)
                vectors += len(record.models)
            documents += len(records)
            row = records[-1].row
            between()
        counts = reader.entries()
        if counts.ids != documents or counts.vectors != vectors or sum(state.vectors.values()) != vectors:
            raise StorageCorrupt(
                f"{documents} documents have {vectors} vectors, {counts.ids} ids and {counts.vectors} vectors are stored, "
                f"{sum(state.vectors.values())} are counted"
            )
        digest = (total % 2 ** (8 * DIGEST_BYTES)).to_bytes(DIGEST_BYTES, "big")
        return Content(state.position, digest, documents, drawing.matrix)


def _digest(reader: Reader, record: DocumentRecord, retired: frozenset[int]) -> bytes:
    reader.check_row(record)
    models = [model for model in record.models if model not in retired]
    sizes = len(record.id), len(record.attributes), len(record.text), len(models)
    parts = [_HEADER.pack(record.version, record.written_at_us, *sizes), record.id, record.attributes, record.text]
    for model in models:
        vector = reader.vector(model, record.row)
        parts += [model_prefix(model), _LENGTH.pack(len(vector)), vector]
    return hashlib.sha256(b"".join(parts)).digest()


class _Drawing:
    """One random vector out of each of `draws` equal runs of the `total` vectors."""

    def __init__(self, total: int, draws: int) -> None:
        count = min(total, draws)
        random = np.random.default_rng(_SEED)
        # Runs are at least one vector long, so that no place comes twice.
        edges = np.linspace(0, total, count + 1).astype(np.int64)
        self._places = iter(random.integers(edges[:-1], edges[1:]).tolist())
        self._next = next(self._places, -1)
        self._seen = 0
        self._drawn: list[FloatArray] = []

    def wants_next(self) -> bool:
        """Whether the next vector, of which this is the announcement, is to be taken."""
        wanted = self._seen == self._next
        self._seen += 1
        return wanted

    def take(self, reader: Reader, model: int, row: int) -> None:
        _, vectors = reader.vectors(model, np.array([row], dtype=np.uint64))
        self._drawn.append(vectors[0].astype(np.float32))
        self._next = next(self._places, -1)

    @property
    def matrix(self) -> FloatArray:
        return np.stack(self._drawn) if self._drawn else np.empty((0, 0), dtype=np.float32)
