"""Decides what becomes of a record, from the record and the document before it alone.

Every replica decides the same, because nothing else enters. Pure: knows neither LMDB nor the log.
"""

from dataclasses import dataclass
from enum import IntEnum, unique

from kintsugi.internal.v1 import log_pb2, shard_pb2


@unique
class Operation(IntEnum):
    """What a record does. The numbers stand in the journal: never change them."""

    PUT = 1
    PATCH = 2
    DELETE = 3
    EMBED = 4


@unique
class Condition(IntEnum):
    ALWAYS = log_pb2.CONDITION_UNSPECIFIED
    INSERT_ONLY = log_pb2.CONDITION_INSERT_ONLY
    UPDATE_ONLY = log_pb2.CONDITION_UPDATE_ONLY
    IF_VERSION = log_pb2.CONDITION_IF_VERSION


@unique
class Outcome(IntEnum):
    """The numbers are those of the RecordOutcome of shard.proto and stand in the journal: never change them."""

    APPLIED = shard_pb2.RECORD_OUTCOME_APPLIED
    NOT_THERE = shard_pb2.RECORD_OUTCOME_NOT_THERE
    EXISTS = shard_pb2.RECORD_OUTCOME_EXISTS
    MISSING = shard_pb2.RECORD_OUTCOME_MISSING
    VERSION_DIFFERS = shard_pb2.RECORD_OUTCOME_VERSION_DIFFERS
    FORGOTTEN = shard_pb2.RECORD_OUTCOME_FORGOTTEN


@dataclass(frozen=True, slots=True)
class Decision:
    """`version` is the document's version after the record, 0 when there is no document."""

    outcome: Outcome
    version: int


def decide(
    operation: Operation, condition: Condition, expected_version: int, seq: int, current_version: int | None
) -> Decision:
    """Decides the record `seq` for a document at `current_version`, None when there is no document."""
    refusal = _refusal(condition, expected_version, current_version)
    if refusal is None and current_version is None and operation is not Operation.PUT:
        refusal = Outcome.NOT_THERE if operation is Operation.DELETE else Outcome.MISSING
    if refusal is not None:
        return Decision(refusal, current_version or 0)
    if operation is Operation.PUT:
        return Decision(Outcome.APPLIED, seq)
    if operation is Operation.DELETE:
        return Decision(Outcome.APPLIED, 0)
    return Decision(Outcome.APPLIED, current_version or 0)


def _refusal(condition: Condition, expected_version: int, current_version: int | None) -> Outcome | None:
    if condition is Condition.INSERT_ONLY:
        return None if current_version is None else Outcome.EXISTS
    if condition is Condition.ALWAYS:
        return None
    if current_version is None:
        return Outcome.MISSING
    if condition is Condition.IF_VERSION and current_version != expected_version:
        return Outcome.VERSION_DIFFERS
    return None
