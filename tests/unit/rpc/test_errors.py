"""The error tree crosses the wire whole."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from kintsugi import errors
from kintsugi.rpc.errors import CODES, MAX_MESSAGE_CHARACTERS, code_name, from_rich_status, to_rich_status

EXAMPLES = [
    errors.InvalidArgument("options.k", "is 0", "must be 1 to 1000"),
    errors.FailedPrecondition("2 live shard servers, 3 replicas wanted", reason="TOO_FEW_SERVERS"),
    errors.StalePlan("registry revision 4 is behind 7", revision=7),
    errors.NotFound("collection docs does not exist", field="collection"),
    errors.AlreadyExists("collection docs has 2 shards, 3 asked for"),
    errors.ResourceExhausted("64 searches are waiting, at most 64", retry_delay_s=0.25),
    errors.Unavailable("shard 3 did not answer", reason="LOG_BEHIND"),
    errors.Aborted("write 12 of epoch 1 was discarded"),
    errors.OutOfRange("page token is older than the journal"),
    errors.DeadlineExceeded("no answer from the log within 10 s", reason="OUTCOME_UNKNOWN"),
    errors.Internal("internal error, request 42"),
]


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(child) for child in cls.__subclasses__()))


def test_every_error_class_has_a_status_code():
    """A class added to the tree without a row in the table would fail here, not in production."""
    # Classes of other modules travel as the one of the tree that they derive from.
    assert {cls for cls in subclasses(errors.KintsugiError) if cls.__module__ == errors.__name__} == set(CODES)
    assert {type(example) for example in EXAMPLES} == set(CODES) - {errors.KintsugiError}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_survives_the_round_trip(error):
    """Class, message, field, reason, metadata and retry delay arrive as they were raised."""
    status = status_pb2.Status.FromString(to_rich_status(error).SerializeToString())
    back = from_rich_status(status)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) | {"reason": back.reason} == vars(error) | {"reason": error.reason}


def test_invalid_argument_carries_a_field_violation():
    """Clients in any language find the field at fault in google.rpc.BadRequest."""
    status = to_rich_status(EXAMPLES[0])
    violation = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violation) for detail in status.details)
    assert violation.field_violations[0].field == "options.k"
    assert violation.field_violations[0].description == "options.k is 0, must be 1 to 1000"


def test_long_message_is_cut_below_the_header_limit():
    """A message that names a huge value still fits into trailing metadata."""
    status = to_rich_status(errors.NotFound("x" * 100_000))
    assert len(status.message) == MAX_MESSAGE_CHARACTERS


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_foreign_status_becomes_some_error_of_ours(code):
    """A proxy's status without details is still a KintsugiError with the message."""
    error = from_rich_status(status_pb2.Status(code=code.value[0], message="from a proxy"))
    assert isinstance(error, errors.KintsugiError)
    assert str(error) == "from a proxy"


def test_details_of_another_domain_do_not_choose_the_class():
    """A reason means something only in our domain."""
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="STALE_PLAN", domain="example.org"))
    status = status_pb2.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="no", details=[detail])
    assert type(from_rich_status(status)) is errors.FailedPrecondition


def test_code_name_is_the_grpc_name():
    """Coverage reports failures by these names."""
    assert code_name(errors.StalePlan("old", revision=1)) == "FAILED_PRECONDITION"
