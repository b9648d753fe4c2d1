"""Fills the attribute index of a database that was written before there was one, when it is opened.

Works through the documents by row, in transactions of bounded size. Each moves a mark on to the last row that is done;
the last one removes it. A crash on the way leaves the mark, and opening goes on behind it. The quota does not count here:
a replica that served must open after an upgrade; it refuses further growth as ever.
"""

from typing import Any, Final

import msgspec

from kintsugi.telemetry import LogEvent, logger
from shard.attributes.changes import AttributeChanges, AttributesOfRow
from shard.attributes.writing import write_changes
from shard.environment import META_ATTRIBUTES, META_STATE, Environment
from shard.layout import State, document_content, encode_state, number

_log = logger("storage")

_MAX_DOCUMENTS: Final = 2000
_MAX_BYTES: Final = 8 * 2**20


def index_documents(environment: Environment, state: State) -> State:
    """Fills the index if it is not complete. Returns the state that is then stored."""
    if not _is_marked(environment):
        return state
    _log.info(LogEvent.ATTRIBUTES_INDEXING, path=str(environment.path))
    while _is_marked(environment):
        state = index_some(environment, state)
    _log.info(LogEvent.ATTRIBUTES_INDEXED, path=str(environment.path))
    return state


def index_some(environment: Environment, state: State) -> State:
    """One transaction of it."""
    databases = environment.databases
    with environment.env.begin(write=True, buffers=True) as txn:
        after = int.from_bytes(txn.get(META_ATTRIBUTES, db=databases.meta), "big")
        rows = _documents_after(txn, databases.documents, after)
        if not rows:
            txn.delete(META_ATTRIBUTES, db=databases.meta)
            return state
        written = write_changes(txn, databases, AttributeChanges.of(rows), state.next_attribute)
        state = msgspec.structs.replace(state, next_attribute=written.next_number)
        txn.put(META_STATE, encode_state(state), db=databases.meta)
        txn.put(META_ATTRIBUTES, number(rows[-1][0]), db=databases.meta)
    return state


def _is_marked(environment: Environment) -> bool:
    with environment.env.begin() as txn:
        return txn.get(META_ATTRIBUTES, db=environment.databases.meta) is not None


def _documents_after(txn: Any, documents: Any, row: int) -> list[AttributesOfRow]:
    found: list[AttributesOfRow] = []
    size = 0
    cursor = txn.cursor(documents)
    if cursor.set_range(number(row + 1)):
        for key, value in cursor.iternext():
            attributes, _ = document_content(value)
            found.append((int.from_bytes(key, "big"), None, attributes))
            size += len(attributes)
            if len(found) >= _MAX_DOCUMENTS or size >= _MAX_BYTES:
                break
    return found
