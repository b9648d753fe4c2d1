"""The records that stand in a log: how they are built and parsed.

A record is built in two steps: a body, which says what to do and is the same whenever a request is sent again, and the
stamp, the time at which a coordinator took it. content_digest covers bodies only, so that a repeated request is
recognised by any coordinator. Records of one request share entries of the log, since what an entry costs on its way is
mostly the same whatever its size. Pure: knows neither Redis nor what replay makes of a record.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha1

from google.protobuf.message import DecodeError

from kintsugi.ids import DocId, encode
from kintsugi.internal.v1 import log_pb2
from kintsugi.log.faults import RecordUnreadable
from kintsugi.log.payload import Payload

FORMAT_VERSION = 1
PACKED_FORMAT_VERSION = 2
# An entry of several records ends before those would be larger. Much larger ones gain nothing more, and make every read of
# a few entries a large one.
PACKED_BYTES = 32 * 2**10
PACKED_RECORDS = 128


def put(
    doc_id: DocId,
    vectors: Mapping[int, bytes],
    *,
    attributes: bytes = b"",
    text: str = "",
    condition: log_pb2.Condition.ValueType = log_pb2.CONDITION_UNSPECIFIED,
    expected_version: int = 0,
) -> bytes:
    """The body that inserts or replaces a document. `vectors` maps model numbers to little-endian elements."""
    content = log_pb2.Put(attributes=attributes, text=text, vectors=_stored(vectors))
    return _record(doc_id, condition, expected_version, put=content).SerializeToString()


def patch(
    doc_id: DocId,
    attributes: bytes,
    *,
    condition: log_pb2.Condition.ValueType = log_pb2.CONDITION_UNSPECIFIED,
    expected_version: int = 0,
) -> bytes:
    """The body that changes a document's attributes only."""
    content = log_pb2.Patch(attributes=attributes)
    return _record(doc_id, condition, expected_version, patch=content).SerializeToString()


def delete(doc_id: DocId, *, expected_version: int = 0) -> bytes:
    """The body that deletes a document, only at `expected_version` when given."""
    condition = log_pb2.CONDITION_IF_VERSION if expected_version else log_pb2.CONDITION_UNSPECIFIED
    return _record(doc_id, condition, expected_version, delete=log_pb2.Delete()).SerializeToString()


def embed(doc_id: DocId, vectors: Mapping[int, bytes], *, expected_version: int) -> bytes:
    """The body that adds vectors computed from the document at `expected_version`, at least 1."""
    content = log_pb2.Embed(vectors=_stored(vectors))
    return _record(doc_id, log_pb2.CONDITION_IF_VERSION, expected_version, embed=content).SerializeToString()


def _stored(vectors: Mapping[int, bytes]) -> list[log_pb2.StoredVector]:
    return [log_pb2.StoredVector(model=model, data=data) for model, data in sorted(vectors.items())]


def _record(
    doc_id: DocId,
    condition: log_pb2.Condition.ValueType,
    expected_version: int,
    *,
    put: log_pb2.Put | None = None,
    patch: log_pb2.Patch | None = None,
    delete: log_pb2.Delete | None = None,
    embed: log_pb2.Embed | None = None,
) -> log_pb2.Record:
    return log_pb2.Record(
        format_version=FORMAT_VERSION,
        id=encode(doc_id),
        condition=condition,
        expected_version=expected_version,
        put=put,
        patch=patch,
        delete=delete,
        embed=embed,
    )


def stamp(body: bytes, written_at_us: int) -> bytes:
    """The record: the body with the time of the write."""
    # Serialised messages concatenate to their merge, so a body of many vectors need not be built twice.
    return body + _time(written_at_us)


def pack(records: Sequence[bytes]) -> list[Payload]:
    """The entries that hold these records, in their order."""
    payloads: list[Payload] = []
    start = size = 0
    for place, record in enumerate(records):
        if place > start and (size + len(record) > PACKED_BYTES or place - start == PACKED_RECORDS):
            payloads.append(_payload(records[start:place]))
            start, size = place, 0
        size += len(record)
    if start < len(records):
        payloads.append(_payload(records[start:]))
    return payloads


def unpack(payload: bytes) -> Sequence[bytes]:
    """The records of an entry. RecordUnreadable when it is damaged."""
    entry = _parsed(payload)
    return entry.records if entry.format_version == PACKED_FORMAT_VERSION else (payload,)


@lru_cache(maxsize=16)
def _time(written_at_us: int) -> bytes:
    return log_pb2.Record(written_at_us=written_at_us).SerializeToString()


def _payload(records: Sequence[bytes]) -> Payload:
    if len(records) == 1:
        return Payload(records[0])
    entry = log_pb2.Record(format_version=PACKED_FORMAT_VERSION, records=records)
    return Payload(entry.SerializeToString(), len(records))


def content_digest(bodies: Iterable[bytes]) -> bytes:
    """Identifies what a request asks for (20 bytes), whenever and through whomever it is sent."""
    digest = sha1(usedforsecurity=False)
    for body in bodies:
        digest.update(b"%d:" % len(body))
        digest.update(body)
    return digest.digest()


def parse(data: bytes) -> log_pb2.Record:
    """The record in its bytes; RecordUnreadable when it is damaged or of a format this release does not know."""
    record = _parsed(data)
    if record.format_version != FORMAT_VERSION:
        raise RecordUnreadable(
            f"record has format_version {record.format_version}, this release reads {FORMAT_VERSION}"
        )
    if record.WhichOneof("operation") is None or not record.id:
        raise RecordUnreadable("record has no operation or no id")
    return record


def _parsed(data: bytes) -> log_pb2.Record:
    try:
        return log_pb2.Record.FromString(data)
    except DecodeError as error:
        raise RecordUnreadable(f"record of {len(data)} bytes is damaged: {error}") from error
