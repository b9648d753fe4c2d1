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
