"""The answer to a write: when the whole call fails, and what each item says otherwise."""

import pytest

from coordinator.acks import RecordResult
from coordinator.answers import PartOutcome, answer, answer_per_item
from coordinator.operations import Level, Operation, Options, Write
from kintsugi import tokens
from kintsugi.errors import Aborted, DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.append import NOT_WRITTEN, OUTCOME_UNKNOWN
from kintsugi.position import Position
from kintsugi.v1 import documents_pb2

APPLIED = documents_pb2.WRITE_OUTCOME_APPLIED
REFUSED = documents_pb2.WRITE_OUTCOME_REFUSED
UNWRITTEN = documents_pb2.WRITE_OUTCOME_NOT_WRITTEN
UNKNOWN = documents_pb2.WRITE_OUTCOME_UNKNOWN


@pytest.fixture
def write(collection):
    operations = [Operation(0, 0, b"a"), Operation(1, 1, b"b", is_delete=True), Operation(2, 0, b"c")]
    return Write(collection, Options(Level.DURABLE, 1, "req-1"), 3, operations, {})


def applied(part, outcome=shard_pb2.RECORD_OUTCOME_APPLIED):
    records = [RecordResult(outcome, 10 + place) for place, _ in enumerate(part.operations)]
    return PartOutcome(part, Position(1, 11, b"d" * 20), records)


def failed(part, error):
    return PartOutcome(part, error=error)


def lost():
    return Unavailable("refused", reason=NOT_WRITTEN)


def late():
    return DeadlineExceeded("too late", reason=OUTCOME_UNKNOWN)


def test_acknowledged_items_stand_in_the_order_of_the_request(write):
    """Each item gets its own version; a deleted document has none; the token covers both shards."""
    response = answer(write, [applied(part) for part in write.parts()])
    assert [result.outcome for result in response.results] == [APPLIED] * 3
    assert [result.version for result in response.results] == [10, 0, 11]
    assert [result.found for result in response.results] == [True] * 3
    assert response.request_id == "req-1"
    assert [shard for shard, _ in tokens.decode(response.token).positions] == [0, 1]


@pytest.mark.parametrize(
    ("outcome", "expected", "found"),
    [
        (shard_pb2.RECORD_OUTCOME_NOT_THERE, APPLIED, False),
        (shard_pb2.RECORD_OUTCOME_EXISTS, REFUSED, False),
        (shard_pb2.RECORD_OUTCOME_MISSING, REFUSED, False),
        (shard_pb2.RECORD_OUTCOME_VERSION_DIFFERS, REFUSED, False),
        (shard_pb2.RECORD_OUTCOME_FORGOTTEN, UNKNOWN, False),
    ],
)
def test_outcome_of_replay_becomes_the_outcome_of_the_item(write, outcome, expected, found):
    """What replay refused is refused for good and says why."""
    response = answer(write, [applied(part, outcome) for part in write.parts()])
    assert {result.outcome for result in response.results} == {expected}
    assert {result.found for result in response.results} == {found}
    assert all(bool(result.message) == (expected is not APPLIED) for result in response.results)
    assert {result.version for result in response.results} == {0}


def test_nothing_written_fails_the_call_with_its_error(write):
    """The caller retries the whole call, after the delay."""
    full = ResourceExhausted("full", retry_delay_s=1.0)
    with pytest.raises(ResourceExhausted) as caught:
        answer(write, [failed(part, full) for part in write.parts()])
    assert caught.value.retry_delay_s == 1.0


def test_error_that_no_repetition_overcomes_is_told_first(write):
    """Retrying the unavailable shard would not help the other one."""
    one, other = write.parts()
    with pytest.raises(Aborted):
        answer(write, [failed(one, lost()), failed(other, Aborted("discarded"))])


def test_partly_written_request_is_answered_per_item(write):
    """The written part is applied, the other one may be sent again."""
    one, other = write.parts()
    response = answer(write, [applied(one), failed(other, lost())])
    assert [result.outcome for result in response.results] == [APPLIED, UNWRITTEN, APPLIED]
    assert response.results[1].message == "refused"
    assert [shard for shard, _ in tokens.decode(response.token).positions] == [0]


def test_reused_request_id_after_a_partial_write_is_refused_per_item(write):
    """Sending these items again under the same id is pointless."""
    one, other = write.parts()
    response = answer(write, [applied(one), failed(other, InvalidArgument("request_id", "was used"))])
    assert [result.outcome for result in response.results] == [APPLIED, REFUSED, APPLIED]


def test_passed_deadline_with_unknown_outcome_fails_the_call_and_names_the_request_id(write):
    """Whoever repeats it with this id learns the outcome."""
    one, other = write.parts()
    with pytest.raises(DeadlineExceeded, match="req-1"):
        answer(write, [applied(one), failed(other, late())])


def test_unknown_outcome_before_the_deadline_is_told_per_item(write):
    """UNAVAILABLE would claim that nothing was written."""
    unknown = Unavailable("lost the reply", reason=OUTCOME_UNKNOWN)
    response = answer(write, [failed(part, unknown) for part in write.parts()])
    assert {result.outcome for result in response.results} == {UNKNOWN}


def test_deadline_before_anything_was_written_keeps_its_certainty(write):
    """The error says that it was not written."""
    with pytest.raises(DeadlineExceeded) as caught:
        answer(write, [failed(part, DeadlineExceeded("late", reason=NOT_WRITTEN)) for part in write.parts()])
    assert caught.value.reason == NOT_WRITTEN


def test_bulk_chunk_is_answered_per_item_whatever_happens(write):
    """An error would take the answers of other chunks with it."""
    one, other = write.parts()
    response = answer_per_item(write, [failed(one, lost()), failed(other, late())])
    assert [result.outcome for result in response.results] == [UNWRITTEN, UNKNOWN, UNWRITTEN]


def test_logged_items_are_applied_without_version(write):
    """Their outcome in replay is not waited for, their position is in the token."""
    logged = Write(write.collection, Options(Level.LOGGED, 1, "req-1"), 3, write.operations, {})
    response = answer(logged, [PartOutcome(part, Position(1, 9, b"d")) for part in logged.parts()])
    assert [(result.outcome, result.version) for result in response.results] == [(APPLIED, 0)] * 3
    assert [result.found for result in response.results] == [True, False, True]
    assert len(tokens.decode(response.token).positions) == 2
