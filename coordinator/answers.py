"""Builds the answer to a write from what became of its parts, or decides that the whole call failed. Pure.

Table (DESIGN 3.1):
  every part acknowledged                    one result per item
  nothing of the request was written         the error, so that the caller retries the call
  time ran out with an unknown outcome       DeadlineExceeded that names the request id
  otherwise                                  one result per item: applied, refused, not written or unknown
A chunk of a bulk call is always answered per item: an error would take the answers of other chunks with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.acks import RecordResult
from coordinator.operations import Level, Part, Write
from kintsugi.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    KintsugiError,
    NotFound,
)
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.append import OUTCOME_UNKNOWN
from kintsugi.position import Position
from kintsugi.tokens import Token
from kintsugi.v1 import documents_pb2

# Errors that a repetition cannot overcome; they are told before the others.
_FINAL = (InvalidArgument, NotFound, FailedPrecondition, Aborted)

_REFUSALS: dict[shard_pb2.RecordOutcome.ValueType, str] = {
    shard_pb2.RECORD_OUTCOME_EXISTS: "there is a document of this id already",
    shard_pb2.RECORD_OUTCOME_MISSING: "there is no document of this id",
}


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """What became of a part: `records` when it was acknowledged (empty for LOGGED), else `error`. `position` is set when
    the part is known to stand in the log."""

    part: Part
    position: Position | None = None
    records: Sequence[RecordResult] = ()
    error: KintsugiError | None = None

    @property
    def is_unknown(self) -> bool:
        return self.error is not None and self.error.reason == OUTCOME_UNKNOWN

    @property
    def is_unwritten(self) -> bool:
        return self.error is not None and not self.is_unknown


def answer(write: Write, outcomes: Sequence[PartOutcome]) -> documents_pb2.WriteResponse:
    """The answer to a unary call."""
    _raise_for_whole_call(write, outcomes)
    return answer_per_item(write, outcomes)


def answer_per_item(write: Write, outcomes: Sequence[PartOutcome]) -> documents_pb2.WriteResponse:
    results = [documents_pb2.ItemResult() for _ in range(write.size)]
    for index, message in write.refused.items():
        results[index] = _result(documents_pb2.WRITE_OUTCOME_REFUSED, message)
    for outcome in outcomes:
        for place, operation in enumerate(outcome.part.operations):
            results[operation.index] = _item(write, outcome, place)
    positions = [(outcome.part.shard, outcome.position) for outcome in outcomes if outcome.position is not None]
    return documents_pb2.WriteResponse(
        results=results,
        token=Token.of(write.collection.uid, positions).encode(),
        request_id=write.options.request_id,
    )


def _raise_for_whole_call(write: Write, outcomes: Sequence[PartOutcome]) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    late = next((outcome.error for outcome in outcomes if outcome.is_unknown and _is_late(outcome)), None)
    if late is not None:
        raise DeadlineExceeded(
            f"{late.message}; the outcome is unknown, repeat the call with request_id {write.options.request_id!r}",
            reason=OUTCOME_UNKNOWN,
        )
    if errors and all(outcome.is_unwritten for outcome in outcomes):
        raise min(errors, key=lambda error: not isinstance(error, _FINAL))


def _is_late(outcome: PartOutcome) -> bool:
    return isinstance(outcome.error, DeadlineExceeded)


def _item(write: Write, outcome: PartOutcome, place: int) -> documents_pb2.ItemResult:
    if outcome.is_unknown:
        assert outcome.error is not None
        return _result(documents_pb2.WRITE_OUTCOME_UNKNOWN, outcome.error.message)
    if outcome.error is not None:
        refused = isinstance(outcome.error, InvalidArgument)
        kind = documents_pb2.WRITE_OUTCOME_REFUSED if refused else documents_pb2.WRITE_OUTCOME_NOT_WRITTEN
        return _result(kind, outcome.error.message)
    is_delete = outcome.part.operations[place].is_delete
    if write.options.level is Level.LOGGED:
        return documents_pb2.ItemResult(outcome=documents_pb2.WRITE_OUTCOME_APPLIED, found=not is_delete)
    return _replayed(outcome.records[place], is_delete=is_delete)


def _replayed(record: RecordResult, *, is_delete: bool) -> documents_pb2.ItemResult:
    match record.outcome:
        case shard_pb2.RECORD_OUTCOME_APPLIED:
            version = 0 if is_delete else record.version
            return documents_pb2.ItemResult(outcome=documents_pb2.WRITE_OUTCOME_APPLIED, version=version, found=True)
        case shard_pb2.RECORD_OUTCOME_NOT_THERE:
            return documents_pb2.ItemResult(outcome=documents_pb2.WRITE_OUTCOME_APPLIED)
        case shard_pb2.RECORD_OUTCOME_EXISTS | shard_pb2.RECORD_OUTCOME_MISSING:
            return _result(documents_pb2.WRITE_OUTCOME_REFUSED, _REFUSALS[record.outcome])
        case shard_pb2.RECORD_OUTCOME_VERSION_DIFFERS:
            return _result(
                documents_pb2.WRITE_OUTCOME_REFUSED, f"the document has version {record.version}, not the expected one"
            )
        case _:
            return _result(
                documents_pb2.WRITE_OUTCOME_UNKNOWN, "the write is in the log, its outcome is no longer remembered"
            )


def _result(outcome: documents_pb2.WriteOutcome.ValueType, message: str) -> documents_pb2.ItemResult:
    return documents_pb2.ItemResult(outcome=outcome, message=message)
