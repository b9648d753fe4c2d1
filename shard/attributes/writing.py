"""Writes the changes of a batch to the attribute index, inside the transaction that writes the batch.

Guarantees: a key is written at most once per batch, in key order; a posting or block without rows does not exist, nor
the number of a name that no document has; what does not fit the index as it stands is StorageCorrupt.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from shard.attributes.changes import AttributeChanges, RowChanges
from shard.attributes.layout import (
    BLOCK_BITS,
    CHUNK_BITS,
    DOCUMENTS,
    PRESENCE,
    block_key,
    chunk_bytes,
    decode_block,
    encode_block,
    posting_prefix,
    text_rest,
)
from shard.attributes.names import Names
from shard.attributes.rowset import changed_container
from shard.environment import Databases
from shard.storage_faults import StorageCorrupt

_CHUNK_MASK = (1 << CHUNK_BITS) - 1
_BLOCK_MASK = (1 << BLOCK_BITS) - 1

# By row, the numbers of an attribute from now on, () for none.
NumbersByRow = Mapping[int, tuple[float, ...]]
Writes = dict[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Written:
    """`numbers`: what changed, by the number of the attribute."""

    next_number: int
    numbers: dict[int, NumbersByRow]


def write_changes(txn: Any, databases: Databases, changes: AttributeChanges, next_number: int) -> Written:
    """Brings the index up to the state after the batch. `next_number`: the first attribute number never given."""
    names = Names(txn, databases.names, next_number)
    for (name, kind, _), rows in changes.postings.items():
        if kind == PRESENCE and rows.added:
            names.add(name)
    writes: Writes = {}
    left: list[str] = []
    _plan_posting(txn, databases.postings, posting_prefix(DOCUMENTS, PRESENCE, b""), b"", changes.documents, writes)
    for (name, kind, text), rows in changes.postings.items():
        prefix = posting_prefix(names.number(name), kind, text)
        emptied = _plan_posting(txn, databases.postings, prefix, text_rest(text), rows, writes)
        if emptied and kind == PRESENCE:
            left.append(name)
    numbers: dict[int, NumbersByRow] = {names.number(name): rows for name, rows in changes.numbers.items()}
    blocks: Writes = {}
    for attribute, by_row in numbers.items():
        _plan_blocks(txn, databases.numbers, attribute, by_row, blocks)
    # All is read by now: a view into the database ends with the next write.
    write_sorted(txn, databases.postings, writes)
    write_sorted(txn, databases.numbers, blocks)
    names.drop_unused(databases.postings, left)
    return Written(names.next_number, numbers)


def write_sorted(txn: Any, database: Any, writes: Mapping[bytes, bytes | None]) -> None:
    """Writes the values and deletes the keys without one, in key order: neighbours share pages."""
    for key, value in writes.items():
        if value is None:
            txn.delete(key, db=database)
    items = sorted((key, value) for key, value in writes.items() if value is not None)
    cursor = txn.cursor(database)
    # What comes behind all other keys is appended: LMDB then fills its pages. Else it would split them, and a page of
    # vectors of 384 elements would be left with one instead of two.
    last = bytes(cursor.key()) if cursor.last() else b""
    behind = bisect_right(items, last, key=itemgetter(0))
    cursor.putmulti(items[:behind])
    cursor.putmulti(items[behind:], append=True)


def _plan_posting(txn: Any, postings: Any, prefix: bytes, rest: bytes, rows: RowChanges, writes: Writes) -> bool:
    """Plans the new containers of one posting. Returns whether one of them is gone."""
    added, removed = _by_chunk(rows.added), _by_chunk(rows.removed)
    emptied = False
    for chunk in added.keys() | removed.keys():
        key = prefix + chunk_bytes(chunk)
        value = txn.get(key, None, postings)
        if value is None and chunk in removed:
            raise StorageCorrupt(f"posting {key.hex()} is not there, rows {removed[chunk][:3]} of it are to go")
        container = changed_container(value, added.get(chunk, ()), removed.get(chunk, ()))
        writes[key] = None if container is None else container + rest
        emptied = emptied or container is None
    return emptied


def _by_chunk(rows: Iterable[int]) -> dict[int, list[int]]:
    chunks: dict[int, list[int]] = {}
    for row in rows:
        chunks.setdefault(row >> CHUNK_BITS, []).append(row & _CHUNK_MASK)
    return chunks


def _plan_blocks(txn: Any, database: Any, attribute: int, by_row: NumbersByRow, writes: Writes) -> None:
    blocks: dict[int, dict[int, tuple[float, ...]]] = {}
    for row, values in by_row.items():
        blocks.setdefault(row >> BLOCK_BITS, {})[row & _BLOCK_MASK] = values
    for block, changed in blocks.items():
        key = block_key(attribute, block)
        value = txn.get(key, None, database)
        kept = [] if value is None else [pair for pair in decode_block(value) if pair[0] not in changed]
        pairs = sorted([*kept, *((low, one) for low, values in changed.items() for one in values)])
        writes[key] = encode_block(pairs) if pairs else None
