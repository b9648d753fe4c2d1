"""Records of the log: building, stamping, parsing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi import ids
from kintsugi.internal.v1 import log_pb2
from kintsugi.log import records
from kintsugi.log.faults import RecordUnreadable


@given(
    doc_id=st.one_of(st.integers(0, 2**64 - 1), st.text(min_size=1, max_size=20)),
    vectors=st.dictionaries(st.integers(1, 9), st.binary(max_size=16), max_size=3),
    attributes=st.binary(max_size=20),
    text=st.text(max_size=20),
    written_at_us=st.integers(1, 2**60),
)
def test_a_put_is_parsed_as_it_was_built(doc_id, vectors, attributes, text, written_at_us):
    """Nothing of a put is lost on its way through the log, and the stamp lands in its field."""
    body = records.put(
        doc_id, vectors, attributes=attributes, text=text, condition=log_pb2.CONDITION_IF_VERSION, expected_version=7
    )
    record = records.parse(records.stamp(body, written_at_us))
    assert ids.decode(record.id) == doc_id
    assert {vector.model: vector.data for vector in record.put.vectors} == vectors
    assert (record.put.attributes, record.put.text) == (attributes, text)
    assert (record.condition, record.expected_version) == (log_pb2.CONDITION_IF_VERSION, 7)
    assert record.written_at_us == written_at_us


def test_a_patch_carries_attributes_only():
    """A patch names its operation and its attributes."""
    record = records.parse(records.stamp(records.patch("a", b"{}", condition=log_pb2.CONDITION_UPDATE_ONLY), 1))
    assert record.WhichOneof("operation") == "patch"
    assert (record.patch.attributes, record.condition) == (b"{}", log_pb2.CONDITION_UPDATE_ONLY)


@pytest.mark.parametrize(
    ("version", "condition"), [(0, log_pb2.CONDITION_UNSPECIFIED), (5, log_pb2.CONDITION_IF_VERSION)]
)
def test_a_delete_is_conditional_only_with_a_version(version, condition):
    """A delete without an expected version applies always."""
    record = records.parse(records.stamp(records.delete(3, expected_version=version), 1))
    assert record.WhichOneof("operation") == "delete"
    assert (record.condition, record.expected_version) == (condition, version)


def test_content_digest_ignores_the_time_but_not_the_order_or_the_bounds():
    """The same bodies give the same digest, and neither a swap nor another division of the same bytes does."""
    a, b = records.put(1, {}), records.put(2, {})
    assert records.content_digest([a, b]) == records.content_digest([records.put(1, {}), records.put(2, {})])
    assert len({records.content_digest(bodies) for bodies in ([a, b], [b, a], [a + b], [a, b, b""])}) == 4


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xff",
        b"",
        log_pb2.Record(format_version=2, id=b"\x01a", delete=log_pb2.Delete()).SerializeToString(),
        log_pb2.Record(format_version=1, id=b"\x01a").SerializeToString(),
        log_pb2.Record(format_version=1, delete=log_pb2.Delete()).SerializeToString(),
    ],
)
def test_parse_refuses_what_it_cannot_read(payload):
    """Damage, another format version and a record without id or operation are refused, not guessed."""
    with pytest.raises(RecordUnreadable):
        records.parse(payload)


@given(st.lists(st.binary(max_size=30), max_size=40), st.integers(0, 3))
def test_packed_records_come_out_as_they_went_in(bodies, large):
    """In their order, however large they are; an entry holds as many as it says, and one alone stands as it is."""
    given_records = [records.stamp(records.put("a", {1: body}), 1) for body in bodies]
    given_records += [records.stamp(records.put("b", {1: bytes(records.PACKED_BYTES // 2)}), 1)] * large
    payloads = records.pack(given_records)
    assert [record for payload in payloads for record in records.unpack(payload.data)] == given_records
    assert [len(records.unpack(payload.data)) for payload in payloads] == [payload.records for payload in payloads]
    assert all(payload.data in given_records for payload in payloads if payload.records == 1)


def test_an_entry_is_bounded_in_bytes_and_in_records():
    """What is larger than an entry has one of its own; nothing waits for it, and nothing goes with it."""
    small, large = records.patch("a", b"{}"), records.put("a", {1: bytes(2 * records.PACKED_BYTES)})
    many = records.pack([small] * (2 * records.PACKED_RECORDS + 1))
    assert [payload.records for payload in many] == [records.PACKED_RECORDS, records.PACKED_RECORDS, 1]
    assert [payload.records for payload in records.pack([small, small, large, small, small])] == [2, 1, 2]
    half = records.put("a", {1: bytes(records.PACKED_BYTES // 2 - 100)})
    assert [payload.records for payload in records.pack([half] * 5)] == [2, 2, 1]
    assert records.pack([]) == []


def test_packed_records_are_no_record():
    """Where one record is expected, several are refused, as they would be by a release that knows none."""
    (payload,) = records.pack([records.delete(1), records.delete(2)])
    with pytest.raises(RecordUnreadable):
        records.parse(payload.data)
    with pytest.raises(RecordUnreadable):
        records.unpack(payload.data[:-1])
