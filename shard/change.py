"""A record of the log, parsed and checked: what storage is asked to change.

What does not parse stops the replica (RecordUnreadable): a skipped record would make replicas differ. That holds for
records of a later format, too. A model that nobody declared yet is told apart (UnknownModel): the registry knows it, or
will. Vectors of models that are given up are left out. Pure.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from kintsugi.ids import MAX_TEXT_BYTES
from kintsugi.internal.v1 import log_pb2
from kintsugi.log import records
from kintsugi.log.faults import RecordUnreadable, UnknownModel
from kintsugi.log.read import LogEntry
from shard.outcomes import Condition, Operation

_INTEGER_ID_BYTES: Final = 9
_OPERATIONS = {
    "put": Operation.PUT,
    "patch": Operation.PATCH,
    "delete": Operation.DELETE,
    "embed": Operation.EMBED,
}
_CONDITIONS = {int(condition): condition for condition in Condition}


@dataclass(frozen=True, slots=True)
class Change:
    """`attributes`, `text` and `vectors` (by model, ascending) are those of a put; a patch has attributes only, an embed
    vectors only."""

    seq: int
    id: bytes
    operation: Operation
    condition: Condition
    expected_version: int
    written_at_us: int
    attributes: bytes
    text: bytes
    vectors: dict[int, bytes]


def parse_entry(entry: LogEntry, vector_bytes: Mapping[int, int], retired: Set[int] = frozenset[int]()) -> list[Change]:
    """Parses the records of an entry; see parse."""
    if entry.records == 1:
        return [parse(entry.seq, entry.payload, vector_bytes, retired)]
    try:
        found = records.unpack(entry.payload)
    except RecordUnreadable as error:
        raise RecordUnreadable(f"entry {entry.seq}: {error}") from error
    if len(found) != entry.records:
        raise RecordUnreadable(f"entry {entry.seq} has {len(found)} records, its log says {entry.records}")
    return [parse(seq, record, vector_bytes, retired) for seq, record in enumerate(found, entry.first_seq)]


def parse(seq: int, payload: bytes, vector_bytes: Mapping[int, int], retired: Set[int] = frozenset[int]()) -> Change:
    """Parses the record `seq`. `vector_bytes` are the sizes of a stored vector, by model; vectors of `retired` models are
    left out."""
    try:
        record = records.parse(payload)
    except RecordUnreadable as error:
        raise RecordUnreadable(f"record {seq}: {error}") from error
    operation = _OPERATIONS.get(record.WhichOneof("operation") or "")
    condition = _CONDITIONS.get(record.condition)
    if operation is None or condition is None:
        raise RecordUnreadable(f"record {seq} has an unknown operation or condition {record.condition}")
    if condition is Condition.IF_VERSION and not record.expected_version:
        raise RecordUnreadable(f"record {seq} has expected_version 0, must be at least 1")
    attributes, text, vectors = b"", b"", dict[int, bytes]()
    if operation is Operation.PUT:
        attributes, text = record.put.attributes, record.put.text.encode()
        vectors = _vectors(seq, record.put.vectors, vector_bytes, retired)
    elif operation is Operation.PATCH:
        attributes = record.patch.attributes
    elif operation is Operation.EMBED:
        if condition is not Condition.IF_VERSION or not record.embed.vectors:
            raise RecordUnreadable(f"record {seq} embeds without a version or without a vector")
        vectors = _vectors(seq, record.embed.vectors, vector_bytes, retired)
    return Change(
        seq=seq,
        id=_checked_id(seq, record.id),
        operation=operation,
        condition=condition,
        expected_version=record.expected_version,
        written_at_us=record.written_at_us,
        attributes=attributes,
        text=text,
        vectors=vectors,
    )


def _checked_id(seq: int, encoded: bytes) -> bytes:
    if encoded[:1] == b"\x00" and len(encoded) == _INTEGER_ID_BYTES:
        return encoded
    if encoded[:1] == b"\x01" and 1 < len(encoded) <= 1 + MAX_TEXT_BYTES:
        try:
            str(encoded[1:], "utf-8")
        except UnicodeDecodeError as error:
            raise RecordUnreadable(f"record {seq} has an id that is not UTF-8") from error
        return encoded
    raise RecordUnreadable(f"record {seq} has a malformed id of {len(encoded)} bytes, type byte {encoded[:1]!r}")


def _vectors(
    seq: int, stored: Iterable[log_pb2.StoredVector], vector_bytes: Mapping[int, int], retired: Set[int]
) -> dict[int, bytes]:
    vectors: dict[int, bytes] = {}
    for vector in stored:
        model, data = vector.model, vector.data
        if model in retired:
            continue
        expected = vector_bytes.get(model)
        if expected is None:
            raise UnknownModel(
                f"record {seq} has a vector of model {model}, which this replica does not know", model=model
            )
        if len(data) != expected:
            raise RecordUnreadable(f"record {seq} has a vector of {len(data)} bytes, model {model} needs {expected}")
        if model in vectors:
            raise RecordUnreadable(f"record {seq} has two vectors of model {model}")
        vectors[model] = data
    return vectors if len(vectors) < 2 else dict(sorted(vectors.items()))
