"""The records that stand in a log: how they are built and parsed.

A record is built in two steps: a body, which says what to do and is the same whenever a request is sent again, and the
stamp, the time at which a coordinator took it. content_digest covers bodies only, so that a repeated request is
recognised by any coordinator. Pure: knows neither Redis nor what replay makes of a record.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha1

from google.protobuf.message import DecodeError

from kintsugi.ids import DocId, encode
from kintsugi.internal.v1 import log_pb2
from kintsugi.log.faults import RecordUnreadable

FORMAT_VERSION = 1


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
    """The payload: the body with the time of the write."""
    # Serialised messages concatenate to their merge, so a body of many vectors need not be built twice.
    return body + log_pb2.Record(written_at_us=written_at_us).SerializeToString()


def content_digest(bodies: Iterable[bytes]) -> bytes:
    """Identifies what a request asks for (20 bytes), whenever and through whomever it is sent."""
    digest = sha1(usedforsecurity=False)
    for body in bodies:
        digest.update(b"%d:" % len(body))
        digest.update(body)
    return digest.digest()


def parse(payload: bytes) -> log_pb2.Record:
    """The record in a payload; RecordUnreadable when it is damaged or of a format this release does not know."""
    try:
        record = log_pb2.Record.FromString(payload)
    except DecodeError as error:
        raise RecordUnreadable(f"record of {len(payload)} bytes is damaged: {error}") from error
    if record.format_version != FORMAT_VERSION:
        raise RecordUnreadable(
            f"record has format_version {record.format_version}, this release reads {FORMAT_VERSION}"
        )
    if record.WhichOneof("operation") is None or not record.id:
        raise RecordUnreadable("record has no operation or no id")
    return record
