"""Reads the journal, which tells what each record did, for index builds and outcomes; and trims what is ordered by sequence
number, as journal and tail are.

The journal has one value per record, is contiguous and ends at the replica's position. Works inside the transaction it is
given.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kintsugi.position import Position
from shard.layout import JOURNAL, JOURNAL_DTYPE, JOURNAL_MODEL_SHIFT, number
from shard.outcomes import Operation, Outcome
from shard.storage_faults import JournalTrimmed

Rows = npt.NDArray[np.uint64]

_NO_ROWS: Rows = np.empty(0, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class JournalSlice:
    """The rows whose vectors some consecutive records changed, each once and ascending, deleted ones included; and the
    position after the last of those records."""

    position: Position
    rows: Rows

    @property
    def epoch(self) -> int:
        return self.position.epoch

    @property
    def last_seq(self) -> int:
        return self.position.seq

    @property
    def digest(self) -> bytes:
        return self.position.digest


def first_seq(txn: Any, database: Any) -> int:
    """The first sequence number kept, 0 when there is none."""
    cursor = txn.cursor(database)
    return int.from_bytes(cursor.key(), "big") if cursor.first() else 0


def position_at(txn: Any, journal: Any, seq: int) -> Position | None:
    """The position after the record `seq`, None when the journal does not hold it."""
    value = txn.get(number(seq), db=journal)
    if value is None:
        return None
    _, _, epoch, _, _, digest = JOURNAL.unpack(value)
    return Position(epoch, seq, digest)


def changed_rows(
    txn: Any, journal: Any, after: Position | None, after_seq: int, limit: int, model: int | None
) -> JournalSlice:
    """What up to `limit` records after `after_seq` changed, for vectors of `model` or of any. `after` is that position
    where known."""
    cursor = txn.cursor(journal)
    if not cursor.set_range(number(after_seq + 1)):
        if after is None:
            raise JournalTrimmed(f"journal does not hold record {after_seq}")
        return JournalSlice(after, _NO_ROWS)
    if int.from_bytes(cursor.key(), "big") != after_seq + 1:
        raise JournalTrimmed(f"journal begins at {first_seq(txn, journal)}, cannot be followed from {after_seq}")
    values = [value for value, _ in zip(cursor.iternext(keys=False), range(limit), strict=False)]
    entries = np.frombuffer(b"".join(values), dtype=JOURNAL_DTYPE)
    # A patch leaves every vector as it is, an embed those of other models.
    operation, tagged = entries["operation"], entries["row"].astype(np.uint64)
    changed = (entries["outcome"] == Outcome.APPLIED) & (operation != Operation.PATCH)
    embedded = tagged >> np.uint64(JOURNAL_MODEL_SHIFT)
    if model is not None:
        changed &= (operation != Operation.EMBED) | (embedded == 0) | (embedded == model)
    rows = tagged[changed] & np.uint64((1 << JOURNAL_MODEL_SHIFT) - 1)
    last = entries[-1]
    position = Position(int(last["epoch"]), after_seq + len(entries), last["digest"].tobytes())
    return JournalSlice(position, np.unique(rows))


def outcomes(txn: Any, journal: Any, first: int, last: int) -> list[tuple[Outcome, int]]:
    """The outcome and the document version after each record; FORGOTTEN where the journal no longer tells."""
    found = []
    for seq in range(first, last + 1):
        value = txn.get(number(seq), db=journal)
        if value is None:
            found.append((Outcome.FORGOTTEN, 0))
            continue
        _, outcome, _, _, version, _ = JOURNAL.unpack(value)
        found.append((Outcome(outcome), version))
    return found


def delete_below(txn: Any, database: Any, seq: int, limit: int) -> int:
    """Deletes up to `limit` of the first entries, all below `seq`, and returns how many."""
    cursor = txn.cursor(database)
    deleted = 0
    bound = number(seq)
    is_on_entry = cursor.first()
    while is_on_entry and deleted < limit and bytes(cursor.key()) < bound:
        # Leaves the cursor on the next entry, if there is one.
        cursor.delete()
        deleted += 1
        is_on_entry = bool(cursor.key())
    return deleted
