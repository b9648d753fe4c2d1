"""Everything that can go wrong, as one tree.

KintsugiError
  InvalidArgument      a field of a request is outside its bound
  FailedPrecondition   the request is well-formed, but the cluster's state forbids it
    StalePlan          a replica does not serve what the plan says; refresh the registry and try once more
  NotFound             the named collection, shard or replica does not exist
  AlreadyExists        the name is taken by something else
  ResourceExhausted    a limit is reached; try again after `retry_delay_s`
  Unavailable          a part of the cluster cannot answer now; try again
  Aborted              recovery discarded a write that the request depends on
  OutOfRange           what was asked for is no longer kept
  DeadlineExceeded     time ran out; the outcome of a write is unknown
  Internal             a defect of Kintsugi

Each class is one gRPC status, named by `status`. Messages are lowercase, without a full stop, and name the field, its value and its bound. Pure: `rpc.errors` maps the
tree to gRPC and back.
"""

from typing import ClassVar, Self


class KintsugiError(Exception):
    """The root. `status` names the gRPC status, such as "UNAVAILABLE"; `reason` is a stable UPPER_SNAKE_CASE word for
    programs, `field` the path of the field at fault or '', `retry_delay_s` how long the cluster asks to wait, or None."""

    status: ClassVar[str] = "INTERNAL"
    reason = "INTERNAL"

    def __init__(self, message: str, *, field: str = "", reason: str = "", retry_delay_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_delay_s = retry_delay_s
        self.metadata: dict[str, str] = {}
        if reason:
            self.reason = reason

    def saying(self, message: str) -> Self:
        """The same error with another message."""
        # Subclasses compose messages in their constructors; this one is complete.
        other = type(self).__new__(type(self), message)
        other.__dict__.update(self.__dict__)
        other.message = message
        return other


class InvalidArgument(KintsugiError):
    """Raised as InvalidArgument("options.k", "is 0", "must be 1 to 1000")."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str, bound: str = "", *, reason: str = "") -> None:
        message = f"{field} {problem}, {bound}" if bound else f"{field} {problem}"
        super().__init__(message, field=field, reason=reason)


class FailedPrecondition(KintsugiError):
    status = "FAILED_PRECONDITION"
    reason = "FAILED_PRECONDITION"


class StalePlan(FailedPrecondition):
    """Carries the registry revision that the replica knows."""

    reason = "STALE_PLAN"

    def __init__(self, message: str, *, revision: int) -> None:
        super().__init__(message)
        self.revision = revision
        self.metadata = {"revision": str(revision)}


class NotFound(KintsugiError):
    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class AlreadyExists(KintsugiError):
    status = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class ResourceExhausted(KintsugiError):
    status = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"


class Unavailable(KintsugiError):
    status = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class Aborted(KintsugiError):
    status = "ABORTED"
    reason = "ABORTED"


class OutOfRange(KintsugiError):
    status = "OUT_OF_RANGE"
    reason = "OUT_OF_RANGE"


class DeadlineExceeded(KintsugiError):
    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class Internal(KintsugiError):
    reason = "INTERNAL"
