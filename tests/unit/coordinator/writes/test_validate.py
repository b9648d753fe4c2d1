"""Validation of write requests: what is refused, with which field, and what becomes of what is not."""

import json

import msgspec
import numpy as np
import pytest

from coordinator import validate
from coordinator.operations import Level
from kintsugi import columns, ids, limits
from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.log import records
from kintsugi.metrics import Metric, StoredType
from kintsugi.v1 import documents_pb2, types_pb2

IF_VERSION = documents_pb2.WRITE_CONDITION_IF_VERSION
LOGGED = types_pb2.ACKNOWLEDGEMENT_LOGGED


def nested(depth):
    return '{"a":' * depth + "1" + "}" * depth


def set_document(index=0, **fields):
    def change(request):
        for name, value in fields.items():
            setattr(request.documents[index], name, value)

    return change


def set_matrix(matrix):
    def change(request):
        request.vectors[0].block.CopyFrom(columns.pack_vectors(np.array(matrix, dtype=np.float32)))

    return change


def set_block(**fields):
    def change(request):
        for name, value in fields.items():
            setattr(request.vectors[0].block, name, value)

    return change


def set_request(**fields):
    def change(request):
        for name, value in fields.items():
            setattr(request, name, value)

    return change


def owners(*numbers):
    return lambda request: request.vectors[0].documents.extend(numbers)


def without_vectors(**fields):
    def change(request):
        del request.vectors[:]
        set_document(**fields)(request)
        set_document(1, attributes="{}")(request)

    return change


def no_documents(request):
    del request.documents[:]


def same_id(request):
    request.documents[1].id.integer = 0


def second_block(request):
    request.vectors.add(model="m1").block.CopyFrom(request.vectors[0].block)


BAD = {
    "no documents": (no_documents, "documents"),
    "no id": (lambda request: request.documents[0].id.Clear(), "documents[0].id"),
    "empty text id": (lambda request: setattr(request.documents[0].id, "text", ""), "documents[0].id"),
    "long text id": (lambda request: setattr(request.documents[0].id, "text", "x" * 513), "documents[0].id"),
    "same id twice": (same_id, "documents[1].id"),
    "attributes not json": (set_document(attributes="{"), "documents[0].attributes"),
    "attributes not an object": (set_document(attributes="[1]"), "documents[0].attributes"),
    "attributes with nan": (set_document(attributes='{"a": NaN}'), "documents[0].attributes"),
    "attributes too deep": (set_document(attributes=nested(17)), "documents[0].attributes"),
    "attributes far too deep": (set_document(attributes=nested(8000)), "documents[0].attributes"),
    "attributes too large": (
        set_document(attributes=json.dumps({"a": "x" * limits.MAX_ATTRIBUTES_BYTES})),
        "documents[0].attributes",
    ),
    "text too large": (set_document(text="é" * (limits.MAX_TEXT_BYTES // 2 + 1)), "documents[0].text"),
    "unknown condition": (set_document(condition=9), "documents[0].condition"),
    "version without condition": (set_document(expected_version=1), "documents[0].expected_version"),
    "condition without version": (set_document(condition=IF_VERSION), "documents[0].expected_version"),
    "text without vector": (without_vectors(text="x"), "documents[0].text"),
    "nothing to write": (without_vectors(), "documents[0].attributes"),
    "unknown acknowledgement": (set_request(acknowledgement=9), "acknowledgement"),
    "too many durable replicas": (set_request(durable_replicas=9), "durable_replicas"),
    "long request id": (set_request(request_id="x" * 65), "request_id"),
    "wrong dimension": (set_matrix([[1, 2], [3, 4]]), "vectors[0].block.dimension"),
    "short data": (set_block(data=b"1234"), "vectors[0].block.data"),
    "unknown element type": (set_block(element_type=7), "vectors[0].block.element_type"),
    "fewer vectors than documents": (set_matrix([[1, 2, 3]]), "vectors[0].block.count"),
    "zero vectors": (set_block(count=0, data=b""), "vectors[0].block.count"),
    "not a number": (set_matrix([[1, 2, 3], [1, float("nan"), 3]]), "vectors[0].block[1]"),
    "infinite": (set_matrix([[1, float("inf"), 3], [1, 2, 3]]), "vectors[0].block[0]"),
    "zero vector under cosine": (set_matrix([[0, 0, 0], [1, 2, 3]]), "vectors[0].block[0]"),
    "fewer owners than vectors": (owners(0), "vectors[0].documents"),
    "owner out of range": (owners(0, 2), "vectors[0].documents[1]"),
    "same owner twice": (owners(1, 1), "vectors[0].documents[1]"),
    "two blocks of a model": (second_block, "vectors[1].model"),
}


@pytest.mark.parametrize(("change", "field"), BAD.values(), ids=BAD.keys())
def test_bad_field_refuses_the_whole_request(change, field, collection, kit):
    """A field outside its bound is refused with InvalidArgument that names it."""
    request = kit.upsert()
    change(request)
    with pytest.raises(InvalidArgument) as caught:
        validate.upsert(request, collection)
    assert caught.value.field == field
    assert caught.value.message.startswith(field)


def test_oversized_batch_names_its_bound(kit):
    """A batch beyond 16 MiB is refused before its vectors are looked at."""
    request = kit.upsert(1000, dimension=4400)
    with pytest.raises(InvalidArgument, match=str(limits.MAX_BATCH_BYTES)):
        validate.upsert(request, kit.collection(dimension=4400))


def test_too_many_documents_are_refused(collection, kit):
    """The 1001st document is one too many."""
    with pytest.raises(InvalidArgument, match="1001"):
        validate.upsert(kit.upsert(1001), collection)


def test_unknown_model_is_a_failed_precondition(collection, kit):
    """The message names the model asked for and those there are."""
    request = kit.upsert()
    request.vectors[0].model = "m9"
    with pytest.raises(FailedPrecondition, match=r"'m9'.*m1"):
        validate.upsert(request, collection)


def test_model_name_may_be_left_out_only_when_there_is_one(kit):
    """With two models an empty name is ambiguous."""
    collection = kit.collection(models=2)
    with pytest.raises(InvalidArgument) as caught:
        validate.upsert(kit.upsert(), collection)
    assert caught.value.field == "vectors[0].model"
    alone = msgspec.structs.replace(collection, serving_model="m2", retired=("m1",))
    (_, record) = (records.parse(operation.body) for operation in validate.upsert(kit.upsert(), alone).operations)
    assert [vector.model for vector in record.put.vectors] == [2]


def test_a_retired_model_takes_no_writes(kit):
    """Nor beside a live one; the error names both models."""
    collection = msgspec.structs.replace(kit.collection(models=2), serving_model="m2", retired=("m1",))
    request = kit.upsert()
    request.vectors[0].model = "m2"
    request.vectors.add(model="m1").block.CopyFrom(request.vectors[0].block)
    for validated in (validate.upsert, validate.bulk_upsert):
        with pytest.raises(FailedPrecondition, match=r"m1.*m2") as caught:
            validated(request, collection)
        assert (caught.value.reason, caught.value.field) == ("MODEL_RETIRED", "vectors[1].model")


@pytest.mark.parametrize(
    "change", [set_document(condition=documents_pb2.WRITE_CONDITION_INSERT_ONLY), without_vectors(attributes="{}")]
)
def test_logged_is_refused_when_the_outcome_would_not_be_known(change, collection, kit):
    """Conditions and attributes-only updates are decided in replay, which LOGGED does not wait for."""
    request = kit.upsert(acknowledgement=LOGGED)
    change(request)
    with pytest.raises(InvalidArgument) as caught:
        validate.upsert(request, collection)
    assert caught.value.field == "acknowledgement"


def test_attributes_at_the_depth_bound_pass(collection, kit):
    """Sixteen levels are allowed."""
    request = kit.upsert()
    set_document(attributes=nested(16))(request)
    assert len(validate.upsert(request, collection).operations) == 2


def test_many_brackets_at_one_level_are_not_depth(collection, kit):
    """A broad object is not a deep one."""
    request = kit.upsert()
    set_document(attributes=json.dumps({"a": [[] for _ in range(100)]}))(request)
    assert len(validate.upsert(request, collection).operations) == 2


def test_valid_request_becomes_records_on_the_owning_shards(collection, kit):
    """Each document becomes one record on the shard its id belongs to, with its own vector."""
    request = kit.upsert(20)
    request.documents[3].attributes = '{"a": 1}'
    request.documents[3].text = "hello"
    write = validate.upsert(request, collection)
    for operation in write.operations:
        assert operation.shard == ids.shard_of(operation.index, collection.shards)
    put = records.parse(records.stamp(write.operations[3].body, 7)).put
    assert (put.attributes, put.text) == (b'{"a": 1}', "hello")
    assert np.frombuffer(put.vectors[0].data, "<f4").tolist() == [10, 11, 12]
    assert write.options.level is Level.DURABLE
    assert write.options.durable_replicas == 1
    assert 0 < len(write.options.request_id) <= limits.MAX_REQUEST_ID_BYTES


def test_vectors_may_belong_to_some_documents_only(collection, kit):
    """A document that no vector names becomes an attributes-only update."""
    request = kit.upsert(2)
    request.vectors[0].block.CopyFrom(columns.pack_vectors(np.ones((1, 3), np.float32)))
    request.vectors[0].documents.append(1)
    request.documents[0].attributes = "{}"
    write = validate.upsert(request, collection)
    kinds = [records.parse(operation.body).WhichOneof("operation") for operation in write.operations]
    assert kinds == ["patch", "put"]


@pytest.mark.parametrize(("value", "problem"), [(1e6, "inf"), (1e-9, "zero")])
def test_f16_collection_refuses_what_its_format_cannot_hold(value, problem, kit):
    """Overflow to infinity and underflow to a zero vector are found after conversion."""
    request = kit.upsert()
    set_matrix([[1, 2, 3], [value, value, value]])(request)
    with pytest.raises(InvalidArgument, match=problem) as caught:
        validate.upsert(request, kit.collection(stored=StoredType.F16))
    assert caught.value.field == "vectors[0].block[1]"


def test_zero_vector_is_fine_without_cosine(kit):
    """Only cosine needs a direction."""
    request = kit.upsert()
    set_matrix([[0, 0, 0], [1, 2, 3]])(request)
    assert len(validate.upsert(request, kit.collection(metric=Metric.L2)).operations) == 2


def test_bulk_refuses_bad_items_alone(collection, kit):
    """In a bulk chunk the good items stay, the bad ones carry their reason."""
    request = kit.upsert(6)
    request.documents[1].attributes = "[]"
    request.documents[2].id.integer = 0
    request.documents[3].id.Clear()
    matrix = np.ones((6, 3), np.float32)
    matrix[4, 1] = np.nan
    set_matrix(matrix)(request)
    write = validate.bulk_upsert(request, collection)
    assert [operation.index for operation in write.operations] == [0, 5]
    assert sorted(write.refused) == [1, 2, 3, 4]
    assert "documents[1].attributes" in write.refused[1]
    assert "vectors[0].block[4]" in write.refused[4]


def test_bulk_refuses_the_call_for_a_wrong_shape(collection, kit):
    """What concerns the whole chunk is no single item's fault."""
    request = kit.upsert(2)
    set_matrix([[1, 2], [3, 4]])(request)
    with pytest.raises(InvalidArgument):
        validate.bulk_upsert(request, collection)


def delete_request(**fields):
    return documents_pb2.DeleteRequest(collection="docs", ids=[columns.pack_id(1), columns.pack_id("1")], **fields)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"expected_versions": [1]}, "expected_versions"),
        ({"expected_versions": [1, 0], "acknowledgement": LOGGED}, "acknowledgement"),
        ({"durable_replicas": 99}, "durable_replicas"),
    ],
)
def test_bad_delete_is_refused(fields, field, collection):
    """Deletes are held to their own bounds."""
    with pytest.raises(InvalidArgument) as caught:
        validate.delete(delete_request(**fields), collection)
    assert caught.value.field == field


def test_delete_tells_integer_and_text_apart(collection):
    """42 and "42" are different documents; an expected version becomes a condition."""
    write = validate.delete(delete_request(expected_versions=[0, 5]), collection)
    parsed = [records.parse(operation.body) for operation in write.operations]
    assert [ids.decode(record.id) for record in parsed] == [1, "1"]
    assert [record.expected_version for record in parsed] == [0, 5]


def test_content_of_a_part_does_not_depend_on_time(collection, kit):
    """A repeated request is recognised although it is taken at another time."""
    one, other = (validate.upsert(kit.upsert(20), collection).parts() for _ in range(2))
    assert [part.content for part in one] == [part.content for part in other]
    assert one[0].payloads(1) != other[0].payloads(2)
    changed = kit.upsert(20)
    changed.documents[0].attributes = "{}"
    third = validate.upsert(changed, collection).parts()
    assert {part.content for part in third} != {part.content for part in one}
