"""Reads and writes the tail: the entries of the log that a replica applied last, as they stood there, for recovery.

Contiguous, ends at the replica's position, and is trimmed by whole entries. Works inside the transaction it is given.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from kintsugi.log import records
from kintsugi.log.payload import Payload
from kintsugi.log.read import LogEntry
from shard.layout import DIGEST_BYTES, number
from shard.storage_faults import JournalTrimmed, StorageCorrupt


class TailEntry(NamedTuple):
    """`seq` is that of its last record."""

    seq: int
    payload: Payload
    digest: bytes

    @property
    def first_seq(self) -> int:
        return self.seq - self.payload.records + 1


def append(txn: Any, database: Any, entries: Iterable[LogEntry]) -> None:
    """Puts entries behind the last one."""
    items = [(number(entry.seq), entry.digest + entry.payload) for entry in entries]
    txn.cursor(database).putmulti(items, append=True)


def first_seq(txn: Any, database: Any) -> int:
    """The first record kept, 0 when there is none."""
    cursor = txn.cursor(database)
    return _entry(cursor.key(), cursor.value()).first_seq if cursor.first() else 0


def entries(txn: Any, database: Any, first: int, last: int, max_bytes: int) -> list[TailEntry]:
    """The entries that hold the records from `first` on, up to `last` or about `max_bytes`; at least one. JournalTrimmed
    when there is none."""
    found: list[TailEntry] = []
    size = 0
    cursor = txn.cursor(database)
    if cursor.set_range(number(first)):
        for key, value in cursor.iternext():
            entry = _entry(key, value)
            if found and (entry.first_seq > last or size >= max_bytes):
                break
            if found and entry.first_seq != found[-1].seq + 1:
                raise StorageCorrupt(f"tail holds {entry.first_seq} where {found[-1].seq + 1} must be")
            found.append(entry)
            size += len(value)
    if not found or found[0].first_seq > first:
        raise JournalTrimmed(f"tail begins at {first_seq(txn, database)}, does not hold {first}")
    return found


def _entry(key: bytes, value: bytes) -> TailEntry:
    data = bytes(value[DIGEST_BYTES:])
    return TailEntry(int.from_bytes(key, "big"), Payload(data, len(records.unpack(data))), bytes(value[:DIGEST_BYTES]))
