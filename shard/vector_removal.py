"""Removes the vectors of a model that is given up, some at a time, within the write transaction that it is given.

Documents no longer list the model afterwards; nothing else of them changes. Where it goes on is up to the caller, and
beginning anew is always right.
"""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from pyroaring import BitMap64

from shard.environment import Databases
from shard.layout import ROW_BYTES, decode_document, encode_document, model_prefix, number, vector_key
from shard.storage_faults import StorageCorrupt

# Bounds of one transaction, so that neither writers nor pages wait long for it.
_ROWS: Final = 500
_DOCUMENT_BYTES: Final = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Removed:
    """The rows that lost their vector, and the row to go on behind; None when nothing is left there."""

    rows: BitMap64
    last: int | None


def remove_some(txn: Any, databases: Databases, model: int, after: int) -> Removed:
    """Removes some vectors behind the row `after`."""
    removed = BitMap64()
    size, last = 0, after
    found = _rows_behind(txn, databases, model, after)
    for row in found:
        if size > _DOCUMENT_BYTES:
            return Removed(removed, last)
        size += _remove(txn, databases, model, row)
        removed.add(row)
        last = row
    return Removed(removed, last if len(found) == _ROWS else None)


def _rows_behind(txn: Any, databases: Databases, model: int, after: int) -> list[int]:
    cursor, prefix = txn.cursor(databases.vectors), model_prefix(model)
    if not cursor.set_range(vector_key(model, after + 1)):
        return []
    # Copies: writing makes views end.
    keys = takewhile(lambda key: key.startswith(prefix), map(bytes, cursor.iternext(values=False)))
    return [int.from_bytes(key[-ROW_BYTES:], "big") for key, _ in zip(keys, range(_ROWS), strict=False)]


def _remove(txn: Any, databases: Databases, model: int, row: int) -> int:
    """Returns the bytes of the document, which was written anew."""
    value = txn.get(number(row), None, databases.documents)
    if value is None:
        raise StorageCorrupt(f"row {row} has a vector of model {model} but no document")
    changed = encode_document(decode_document(row, value).without_model(model))
    txn.put(number(row), changed, db=databases.documents)
    txn.delete(vector_key(model, row), db=databases.vectors)
    return len(changed)
