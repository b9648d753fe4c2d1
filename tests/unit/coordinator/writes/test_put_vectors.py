"""New vectors of documents: what is refused, what is logged, and how the answer counts."""

import msgspec
import numpy as np
import pytest

from coordinator import validate
from coordinator.acks import RecordResult
from coordinator.answers import PartOutcome
from coordinator.operations import Level
from coordinator.put_vectors import PutVectors, counted
from kintsugi import columns, ids, tokens
from kintsugi.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable
from kintsugi.internal.v1 import log_pb2, shard_pb2
from kintsugi.log import records
from kintsugi.log.append import OUTCOME_UNKNOWN
from kintsugi.metrics import StoredType
from kintsugi.position import Position
from kintsugi.v1 import types_pb2, upgrades_pb2

APPLIED, FORGOTTEN = shard_pb2.RECORD_OUTCOME_APPLIED, shard_pb2.RECORD_OUTCOME_FORGOTTEN
STALE, MISSING = shard_pb2.RECORD_OUTCOME_VERSION_DIFFERS, shard_pb2.RECORD_OUTCOME_MISSING


def put_request(count=2, **fields):
    """A valid request: integer ids and versions from 1, vectors of ones and up."""
    matrix = np.arange(1, 3 * count + 1, dtype=np.float32).reshape(count, 3)
    known = {"collection": "docs", "model": "m2", "versions": range(1, count + 1), "request_id": "r1"}
    return upgrades_pb2.PutVectorsRequest(
        ids=[columns.pack_id(number) for number in range(1, count + 1)],
        block=columns.pack_vectors(matrix),
        **(known | fields),
    )


@pytest.fixture
def collection(kit):
    return kit.collection(models=2)


def pack(*rows):
    return columns.pack_vectors(np.array(rows, dtype=np.float32))


BAD = {
    "no ids": ({"ids": [], "versions": []}, "ids"),
    "fewer versions than ids": ({"versions": [1]}, "versions"),
    "version 0": ({"versions": [1, 0]}, "versions[1]"),
    "same id twice": ({"ids": [columns.pack_id(1), columns.pack_id(1)]}, "ids[1]"),
    "fewer vectors than ids": ({"block": pack([1, 2, 3])}, "block.count"),
    "wrong dimension": ({"block": pack([1, 2], [3, 4])}, "block.dimension"),
    "zero vector under cosine": ({"block": pack([1, 2, 3], [0, 0, 0])}, "block[1]"),
    "not a number": ({"block": pack([1, float("nan"), 3], [1, 2, 3])}, "block[0]"),
    "no model": ({"model": ""}, "model"),
    "logged only": ({"acknowledgement": types_pb2.ACKNOWLEDGEMENT_LOGGED}, "acknowledgement"),
    "long request id": ({"request_id": "x" * 65}, "request_id"),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD.keys())
def test_a_bad_field_refuses_the_whole_request(fields, field, collection):
    """The error names the field."""
    request = put_request()
    for name in fields:
        request.ClearField(name)
    request.MergeFrom(upgrades_pb2.PutVectorsRequest(**fields))
    with pytest.raises(InvalidArgument) as caught:
        validate.put_vectors(request, collection)
    assert caught.value.field == field


def test_vectors_become_records_at_their_versions(kit):
    """One embed per document, on its shard, in the collection's number format."""
    collection = kit.collection(models=2, stored=StoredType.F16)
    write = validate.put_vectors(put_request(20), collection)
    assert (write.size, write.options.level, write.options.request_id) == (20, Level.DURABLE, "r1")
    for number, operation in enumerate(write.operations, 1):
        record = records.parse(operation.body)
        assert (record.condition, record.expected_version) == (log_pb2.CONDITION_IF_VERSION, number)
        assert (record.id, operation.shard) == (ids.encode(number), ids.shard_of(number, 2))
        (vector,) = record.embed.vectors
        expected = np.arange(3 * number - 2, 3 * number + 1, dtype=np.float16)
        assert (vector.model, vector.data) == (2, expected.tobytes())


@pytest.mark.parametrize(
    ("model", "reason", "names"), [("m1", "MODEL_RETIRED", "m1.*m2"), ("m3", "MODEL_UNKNOWN", "m3.*m1, m2")]
)
def test_only_a_live_model_takes_vectors(collection, model, reason, names):
    """A retired one is refused with the name of the model that serves, an unknown one with those that there are."""
    collection = msgspec.structs.replace(collection, serving_model="m2", retired=("m1",))
    with pytest.raises(FailedPrecondition, match=names) as caught:
        validate.put_vectors(put_request(model=model), collection)
    assert (caught.value.reason, caught.value.field) == (reason, "model")


def write_of(collection, count=4):
    return validate.put_vectors(put_request(count), collection)


def acknowledged(write, *outcomes):
    """Every part acknowledged; the outcomes are those of the items in the order of the request."""
    return [
        PartOutcome(part, Position(1, 9, bytes(20)), [RecordResult(outcomes[one.index], 0) for one in part.operations])
        for part in write.parts()
    ]


def test_an_answer_counts_every_vector(collection):
    """Those of another version and those of no document apart; the token covers all parts."""
    write = write_of(collection)
    answer = counted(write, acknowledged(write, APPLIED, STALE, APPLIED, MISSING))
    assert (answer.written, answer.stale, answer.missing, answer.request_id) == (2, 1, 1, "r1")
    assert {shard for shard, _ in tokens.decode(answer.token).positions} == {part.shard for part in write.parts()}


def test_a_part_that_failed_fails_the_call(collection):
    """An unknown outcome comes first, and names the request id to repeat the call with."""
    write = write_of(collection)
    (first, *_), parts = acknowledged(write, *[APPLIED] * 4), write.parts()
    gone = Unavailable("no replica")
    with pytest.raises(Unavailable, match="no replica"):
        counted(write, [first, PartOutcome(parts[1], error=gone)])
    late = DeadlineExceeded("too late", reason=OUTCOME_UNKNOWN)
    with pytest.raises(DeadlineExceeded, match="request_id 'r1'"):
        counted(write, [PartOutcome(parts[0], error=gone), PartOutcome(parts[1], error=late)])


def test_a_forgotten_outcome_is_never_counted(collection):
    """A repetition after a long time is told apart from a success."""
    write = write_of(collection)
    with pytest.raises(Unavailable, match="1 vectors"):
        counted(write, acknowledged(write, APPLIED, FORGOTTEN, APPLIED, APPLIED))


async def test_the_story_validates_and_writes(collection, deadline):
    """What was validated is what is logged, and the answer is that of its outcomes."""

    class FakeWrites:
        async def run(self, check, request, _deadline):
            write = check(request, collection)
            return write, acknowledged(write, *[APPLIED] * 4)

    answer = await PutVectors(FakeWrites()).put(put_request(4), deadline)
    assert answer.written == 4
