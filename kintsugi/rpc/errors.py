"""Translates the error tree to gRPC statuses with google.rpc details, and back.

The classes of the tree name their status codes themselves. What crosses the wire survives the round trip:
class, message, field, reason, metadata, retry delay. A status that no Kintsugi server made becomes the nearest class.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from kintsugi.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    KintsugiError,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    StalePlan,
    Unavailable,
)

DOMAIN = "kintsugi"
# The reason of the one kind of exhaustion that does not pass with time.
ANSWER_TOO_LARGE = "ANSWER_TOO_LARGE"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
# What grpc.aio says when sending fails, before it knows the server's status.
_MASKED_STATUS = "Internal error from Core"
# Trailing metadata is bounded (limits in channels.py), and the message travels twice in it.
MAX_MESSAGE_CHARACTERS = 1000
MAX_METADATA_CHARACTERS = 256

# The classes of the tree; those that other modules derive from them travel as their ancestor.
_TREE: tuple[type[KintsugiError], ...] = (
    InvalidArgument,
    FailedPrecondition,
    StalePlan,
    NotFound,
    AlreadyExists,
    ResourceExhausted,
    Unavailable,
    Aborted,
    OutOfRange,
    DeadlineExceeded,
    Internal,
    KintsugiError,
)
CODES: dict[type[KintsugiError], grpc.StatusCode] = {kind: grpc.StatusCode[kind.status] for kind in _TREE}

# What a status without our details becomes. A server or proxy that goes away cancels what it holds.
_CLASSES: dict[grpc.StatusCode, type[KintsugiError]] = {
    **{code: error_class for error_class, code in reversed(CODES.items()) if error_class is not KintsugiError},
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: FailedPrecondition,
    grpc.StatusCode.PERMISSION_DENIED: FailedPrecondition,
}


def code_of(error: KintsugiError) -> grpc.StatusCode:
    return grpc.StatusCode[error.status]


def code_number(code: grpc.StatusCode) -> int:
    return code.value[0]


def _clip(text: str, bound: int) -> str:
    return text if len(text) <= bound else text[: bound - 1] + "…"


def to_rich_status(error: KintsugiError) -> status_pb2.Status:
    """The status with ErrorInfo always, BadRequest when a field is at fault, RetryInfo when there is a delay."""
    message = _clip(error.message, MAX_MESSAGE_CHARACTERS)
    metadata = {key: _clip(value, MAX_METADATA_CHARACTERS) for key, value in error.metadata.items()}
    details = [_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if error.retry_delay_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_delay_s * 1e9))
        details.append(_pack(retry))
    return status_pb2.Status(code=code_number(code_of(error)), message=message, details=details)


def _pack(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def from_rich_status(status: status_pb2.Status) -> KintsugiError:
    """Inverts to_rich_status."""
    code = next((code for code in grpc.StatusCode if code_number(code) == status.code), grpc.StatusCode.UNKNOWN)
    info, field, retry_delay_s = _read_details(status.details)
    if info is None or info.domain != DOMAIN:
        return _make(_CLASSES.get(code, Internal), status.message, field, retry_delay_s)
    error = _make(_class_for(code, info.reason), status.message, field, retry_delay_s)
    error.reason = info.reason
    error.metadata = dict(info.metadata)
    if isinstance(error, StalePlan):
        error.revision = int(info.metadata["revision"])
    return error


def _read_details(details: Iterable[AnyMessage]) -> tuple[error_details_pb2.ErrorInfo | None, str, float | None]:
    info, field, retry_delay_s = None, "", None
    bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
        elif detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_delay_s = retry.retry_delay.ToNanoseconds() / 1e9
    return info, field, retry_delay_s


def _class_for(code: grpc.StatusCode, reason: str) -> type[KintsugiError]:
    """The class of this code that is named by its reason, or the general one."""
    named = next((cls for cls, cls_code in CODES.items() if cls_code is code and cls.reason == reason), None)
    return named or _CLASSES.get(code, Internal)


def _make(cls: type[KintsugiError], message: str, field: str, retry_delay_s: float | None) -> KintsugiError:
    # Subclasses compose messages in their constructors; here the message is complete.
    error = cls.__new__(cls)
    KintsugiError.__init__(error, message, field=field, retry_delay_s=retry_delay_s)
    return error


def from_rpc_error(error: grpc.RpcError) -> KintsugiError:
    """What a failed call means. Works for the errors of grpc and of grpc.aio."""
    call = cast("grpc.Call", error)  # every RpcError that a call raises is also the call
    for key, value in call.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            return from_rich_status(status_pb2.Status.FromString(value))
    status = status_pb2.Status(code=code_number(call.code()), message=call.details() or str(call.code().name).lower())
    return from_rich_status(status)


def is_masked(error: grpc.RpcError) -> bool:
    """Whether this stands in place of the status with which a server ended a stream: grpc.aio's own INTERNAL, which it
    reports when the end meets a message that is being written."""
    call = cast("grpc.Call", error)
    return call.code() is grpc.StatusCode.INTERNAL and call.details() == _MASKED_STATUS


class StreamedStatus(Exception):
    """The cause of an error that came as a message on a stream."""


def is_told(error: KintsugiError) -> bool:
    """Whether a server of ours said this, and not gRPC itself, a proxy or this process."""
    cause = error.__cause__
    if isinstance(cause, StreamedStatus):
        return True
    if not isinstance(cause, grpc.RpcError):
        return False
    return any(key == STATUS_DETAILS_KEY for key, _ in cast("grpc.Call", cause).trailing_metadata() or ())


@contextmanager
def grpc_errors() -> Iterator[None]:
    """Turns the failure of a call inside it into the error it stands for."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def too_large(found: str) -> ResourceExhausted:
    """For an answer that no message can hold."""
    return ResourceExhausted(
        f"the answer is larger than a message may be ({found}), ask for fewer documents or fields",
        reason=ANSWER_TOO_LARGE,
    )


def code_name(error: KintsugiError) -> str:
    """A status name such as "UNAVAILABLE", for reports about others' failures."""
    return error.status
