"""Plans the writes of one batch of records before any of them is made.

    add() each change in order: look up the document (in the batch, else in the database) -> decide -> note what changes

Invariants:
1. The state after a run of records does not depend on how they were cut into batches.
2. A key is written at most once per batch, whatever the records did to it.
3. Nothing is written before documents() and attributes() were read to the end, so views into the database stay valid.

Knows the layout of values, not LMDB: `lookup` is injected.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from pyroaring import BitMap64

from shard.attributes.changes import AttributesOfRow
from shard.change import Change
from shard.layout import JOURNAL, JOURNAL_MODEL_SHIFT, DocumentRecord, encode_document, number, vector_key
from shard.outcomes import Operation, Outcome, decide
from shard.vector_rows import Change as VectorChange

Pairs = list[tuple[bytes, bytes]]


class Batch:
    """The planned writes. Those of `documents` and `vectors` map a key to its new value, None to delete it."""

    def __init__(self, lookup: Callable[[bytes], DocumentRecord | None], next_row: int) -> None:
        self._lookup = lookup
        self._before: dict[bytes, DocumentRecord | None] = {}
        self._now: dict[bytes, DocumentRecord | None] = {}
        self.next_row = next_row
        self.vectors: dict[bytes, bytes | None] = {}
        self.vector_counts: dict[int, int] = {}
        # Embed records that came too late for their document.
        self.stale = 0
        self.journal: Pairs = []

    def add(self, change: Change, epoch: int, digest: bytes) -> None:
        """Plans one change, the successor of the one before."""
        current = self._current(change.id)
        version = None if current is None else current.version
        decision = decide(change.operation, change.condition, change.expected_version, change.seq, version)
        row = 0 if current is None else current.row
        if decision.outcome is Outcome.APPLIED:
            if change.operation is Operation.PUT:
                row = self._put(change, current)
            elif current is not None:
                self._change(change, current)
        elif change.operation is Operation.EMBED:
            self.stale += 1
        if change.operation is Operation.EMBED and len(change.vectors) == 1:
            (model,) = change.vectors
            row |= model << JOURNAL_MODEL_SHIFT
        entry = JOURNAL.pack(change.operation, decision.outcome, epoch, row, decision.version, digest)
        self.journal.append((number(change.seq), entry))

    def documents(self) -> dict[bytes, bytes | None]:
        """The changed documents, by row."""
        writes: dict[bytes, bytes | None] = {}
        for encoded, document in self._changed():
            before = self._before[encoded]
            if before is not None and (document is None or document.row != before.row):
                writes[number(before.row)] = None
            if document is not None:
                writes[number(document.row)] = encode_document(document)
        return writes

    def attributes(self) -> Iterator[AttributesOfRow]:
        """The rows of changed documents, with their attributes before and after; None for no document."""
        for encoded, document in self._changed():
            before = self._before[encoded]
            moved = before is None or document is None or document.row != before.row
            if before is not None and moved:
                yield before.row, before.attributes, None
            if document is not None:
                old = None if before is None or moved else before.attributes
                yield document.row, old, document.attributes

    def moved_ids(self) -> list[tuple[bytes, int | None, int | None]]:
        """The ids whose row changed, with the row before and after, None for no document."""
        moved = []
        for encoded, document in self._changed():
            before = self._before[encoded]
            old, new = before.row if before else None, document.row if document else None
            if old != new:
                moved.append((encoded, old, new))
        return moved

    def vector_rows(self) -> dict[int, VectorChange]:
        """The rows that get a vector and that lose it, by model."""
        added: dict[int, list[int]] = {}
        removed: dict[int, list[int]] = {}
        for encoded, document in self._changed():
            before = self._before[encoded]
            moved = before is None or document is None or document.row != before.row
            had, has = before.models if before else (), document.models if document else ()
            if before is not None and (moved or had != has):
                for model in had if moved else set(had).difference(has):
                    removed.setdefault(model, []).append(before.row)
            if document is not None and (moved or had != has):
                for model in has if moved else set(has).difference(had):
                    added.setdefault(model, []).append(document.row)
        return {
            model: VectorChange(BitMap64(added.get(model, ())), BitMap64(removed.get(model, ())))
            for model in added.keys() | removed.keys()
        }

    def _changed(self) -> list[tuple[bytes, DocumentRecord | None]]:
        return [(encoded, now) for encoded, now in self._now.items() if now is not self._before[encoded]]

    def _current(self, encoded: bytes) -> DocumentRecord | None:
        if encoded not in self._now:
            self._now[encoded] = self._before[encoded] = self._lookup(encoded)
        return self._now[encoded]

    def _put(self, change: Change, current: DocumentRecord | None) -> int:
        if current is None:
            row = self.next_row
            self.next_row += 1
        else:
            row = current.row
            self._drop_vectors(current)
        self._write_vectors(change.vectors, row, ())
        self._now[change.id] = DocumentRecord(
            row=row,
            version=change.seq,
            written_at_us=change.written_at_us,
            models=tuple(change.vectors),
            id=change.id,
            attributes=change.attributes,
            text=change.text,
        )
        return row

    def _change(self, change: Change, current: DocumentRecord) -> None:
        if change.operation is Operation.DELETE:
            self._drop_vectors(current)
            self._now[change.id] = None
            return
        if change.operation is Operation.EMBED:
            self._write_vectors(change.vectors, current.row, current.models)
            models = tuple(sorted({*current.models, *change.vectors}))
            if models != current.models:
                self._now[change.id] = replace(current, models=models)
            return
        self._now[change.id] = DocumentRecord(
            row=current.row,
            version=current.version,
            written_at_us=change.written_at_us,
            models=current.models,
            id=current.id,
            attributes=change.attributes,
            text=current.text,
        )

    def _write_vectors(self, vectors: dict[int, bytes], row: int, models: tuple[int, ...]) -> None:
        """`models` are those that the row has a vector of already."""
        for model, data in vectors.items():
            self.vectors[vector_key(model, row)] = data
            if model not in models:
                self._count(model, 1)

    def _drop_vectors(self, document: DocumentRecord) -> None:
        for model in document.models:
            self.vectors[vector_key(model, document.row)] = None
            self._count(model, -1)

    def _count(self, model: int, change: int) -> None:
        self.vector_counts[model] = self.vector_counts.get(model, 0) + change
