"""The decision what becomes of a record, as a table."""

import pytest

from shard.outcomes import Condition, Decision, Operation, Outcome, decide

PUT, PATCH, DELETE, EMBED = Operation
ALWAYS, INSERT, UPDATE, VERSION = Condition
SEQ = 9

# operation, condition, expected version, current version -> outcome, version after
TABLE = [
    (PUT, ALWAYS, 0, None, Outcome.APPLIED, SEQ),
    (PUT, ALWAYS, 0, 5, Outcome.APPLIED, SEQ),
    (PUT, INSERT, 0, None, Outcome.APPLIED, SEQ),
    (PUT, INSERT, 0, 5, Outcome.EXISTS, 5),
    (PUT, UPDATE, 0, None, Outcome.MISSING, 0),
    (PUT, UPDATE, 0, 5, Outcome.APPLIED, SEQ),
    (PUT, VERSION, 5, None, Outcome.MISSING, 0),
    (PUT, VERSION, 5, 5, Outcome.APPLIED, SEQ),
    (PUT, VERSION, 4, 5, Outcome.VERSION_DIFFERS, 5),
    (PATCH, ALWAYS, 0, None, Outcome.MISSING, 0),
    (PATCH, ALWAYS, 0, 5, Outcome.APPLIED, 5),
    (PATCH, INSERT, 0, None, Outcome.MISSING, 0),
    (PATCH, INSERT, 0, 5, Outcome.EXISTS, 5),
    (PATCH, UPDATE, 0, None, Outcome.MISSING, 0),
    (PATCH, UPDATE, 0, 5, Outcome.APPLIED, 5),
    (PATCH, VERSION, 5, None, Outcome.MISSING, 0),
    (PATCH, VERSION, 5, 5, Outcome.APPLIED, 5),
    (PATCH, VERSION, 6, 5, Outcome.VERSION_DIFFERS, 5),
    (DELETE, ALWAYS, 0, None, Outcome.NOT_THERE, 0),
    (DELETE, ALWAYS, 0, 5, Outcome.APPLIED, 0),
    (DELETE, INSERT, 0, None, Outcome.NOT_THERE, 0),
    (DELETE, INSERT, 0, 5, Outcome.EXISTS, 5),
    (DELETE, UPDATE, 0, None, Outcome.MISSING, 0),
    (DELETE, UPDATE, 0, 5, Outcome.APPLIED, 0),
    (DELETE, VERSION, 5, None, Outcome.MISSING, 0),
    (DELETE, VERSION, 5, 5, Outcome.APPLIED, 0),
    (DELETE, VERSION, 4, 5, Outcome.VERSION_DIFFERS, 5),
    # Records that embed have a version, see shard/change.py.
    (EMBED, VERSION, 5, None, Outcome.MISSING, 0),
    (EMBED, VERSION, 5, 5, Outcome.APPLIED, 5),
    (EMBED, VERSION, 4, 5, Outcome.VERSION_DIFFERS, 5),
]


@pytest.mark.parametrize(("operation", "condition", "expected", "current", "outcome", "version"), TABLE)
def test_each_case_has_its_outcome(operation, condition, expected, current, outcome, version):
    """Operation, condition and the version before decide the outcome and the version after."""
    assert decide(operation, condition, expected, SEQ, current) == Decision(outcome, version)


def test_table_is_complete():
    """Every operation meets every condition that it may have, with a document and without one."""
    covered = {(operation, condition, current is None) for operation, condition, _, current, *_ in TABLE}
    assert len(covered) == ((len(Operation) - 1) * len(Condition) + 1) * 2
