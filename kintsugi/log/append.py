"""Appends to the logs of shards: many requests in one script call per log.

Guarantees
  1. A request is appended whole or not at all, as entries of its own with contiguous sequence numbers, once per request id for ten minutes:
     whoever repeats it with the same content gets the original numbers, unless recovery discarded them.
  2. Nothing is appended to a log of another incarnation or epoch, one that is missing or being restored, or one that
     lost entries: it ends before the floor, has another entry there, or does not end where its head says. A floor that
     was learnt before the server restarted or failed over does not count.
  3. A log never outgrows its byte bound, and only what every position has passed is trimmed.
  4. Behind a fence, no request is appended that was checked against a registry of a lower revision.
  5. A call whose reply got lost is repeated as it was; when time runs out, the outcome is reported as unknown.

Reasons of the errors
  LOG_MISSING, EPOCH_MOVED, LOG_RESTORING, LOG_BEHIND, SERVER_CHANGED  refused, nothing was written (Unavailable)
  NOT_WRITTEN          Redis did not take the call, nothing was written (Unavailable)
  OUTCOME_UNKNOWN      it may have been written (Unavailable or DeadlineExceeded); repeating the request tells
  LOG_FULL             of one request (ResourceExhausted)
  REGISTRY_BEHIND      of one request, which must be checked against a newer registry (Unavailable)
  LARGER_THAN_LOG      of one request, which could never be written (InvalidArgument)
  REQUEST_ID_REUSED    of one request (InvalidArgument)

Knows nothing of what the payloads say.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from redis.exceptions import AuthenticationError, BusyLoadingError, ResponseError

from kintsugi.errors import (
    AlreadyExists,
    DeadlineExceeded,
    InvalidArgument,
    KintsugiError,
    ResourceExhausted,
    Unavailable,
)
from kintsugi.keys import Keys
from kintsugi.log.chain import payload_digest
from kintsugi.log.payload import Payload
from kintsugi.log.scripts import log_script, shard_keys
from kintsugi.position import Position
from kintsugi.redis_client import REDIS_EXCEPTIONS, RedisClient, redis_errors

OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
NOT_WRITTEN = "NOT_WRITTEN"
REGISTRY_BEHIND = "REGISTRY_BEHIND"

REQUEST_MEMORY_MS = 600_000
# Replicas report their positions several times a second, after which there is room again.
FULL_RETRY_DELAY_S = 1.0
_REPEAT_DELAY_S = 0.05

_APPEND = log_script("append.lua")
_CREATE = log_script("create.lua")
_FENCE = log_script("fence.lua")
_SERVER = log_script("server.lua")

_REFUSALS = {
    "LOG_MISSING": "is missing",
    "EPOCH_MOVED": "is in another epoch",
    "LOG_RESTORING": "is being restored",
    "LOG_BEHIND": "lost entries",
    "SERVER_CHANGED": "is on a restarted or another server",
}


@dataclass(frozen=True, slots=True)
class LogTarget:
    """A log as the caller knows it. `floor` is the highest position that any in-sync replica told (START for none),
    `server` what LogWriter.server said before they were asked ('' does without)."""

    uid: str
    shard: int
    incarnation: int
    epoch: int
    floor: Position
    server: str = ""

    def __str__(self) -> str:
        return f"log {self.uid}/{self.shard}"


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Payloads that belong together. `content` (20 bytes) identifies what is asked for when a request id comes again:
    give records.content_digest of the bodies, so that the time of writing is no part of it. `revision` is that of the registry
    that it was checked against, None when no change of the registry matters to it."""

    request_id: str
    payloads: Sequence[Payload]
    content: bytes = b""
    revision: int | None = None

    @property
    def records(self) -> int:
        return sum(payload.records for payload in self.payloads)

    @property
    def size(self) -> int:
        """Of its payloads, in bytes."""
        return sum(len(payload.data) for payload in self.payloads)


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Where a request stands in the log. When `repeated`, an earlier call wrote it, perhaps in an earlier epoch."""

    request_id: str
    first_seq: int
    last: Position
    repeated: bool


@dataclass(frozen=True, slots=True)
class _Failure:
    """An attempt that brought no reply."""

    error: BaseException
    may_have_written: bool
    timed_out: bool


class LogWriter:
    """`max_log_bytes` bounds what one log keeps; an append beyond it is refused until replicas have caught up. Raise it
    to survive longer absences of replicas, lower it to spare Redis' memory. `attempt_timeout_s` is how long one call may
    take before it is repeated."""

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        *,
        max_log_bytes: int,
        attempt_timeout_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._keys = keys
        self._max_log_bytes = max_log_bytes
        self._attempt_timeout_s = attempt_timeout_s
        self._clock = clock

    async def create(self, uid: str, shard: int, incarnation: int, epoch: int, members: Iterable[str] = ()) -> None:
        """Creates an empty log whose trimming waits for `members`. Does nothing when it is there; AlreadyExists when it
        is there in another incarnation or epoch."""
        with redis_errors(f"creating log {uid}/{shard}"):
            reply = await _CREATE.run(
                self._client, shard_keys(self._keys, uid, shard), [incarnation, epoch, *sorted(members)]
            )
        if reply != b"OK":
            raise AlreadyExists(f"log {uid}/{shard} is there in another incarnation or epoch", reason="EPOCH_MOVED")

    async def drop(self, uid: str, shard: int) -> None:
        """Deletes a log. The request ids it remembers expire by themselves."""
        with redis_errors(f"dropping log {uid}/{shard}"):
            await self._client.execute_command("UNLINK", *shard_keys(self._keys, uid, shard))

    async def fence(self, uid: str, shard: int, incarnation: int, epoch: int, revision: int) -> int:
        """Refuses requests from now on that were checked against a registry before `revision`. Returns the last sequence number
        that is not behind the fence. A log that is restored afterwards has forgotten it. Raises Unavailable with the reason
        LOG_MISSING, EPOCH_MOVED or LOG_RESTORING for another log than was meant."""
        with redis_errors(f"fencing log {uid}/{shard}"):
            reply: list[bytes] = await _FENCE.run(
                self._client, shard_keys(self._keys, uid, shard), [incarnation, epoch, revision]
            )
        status = reply[0].decode()
        if status != "OK":
            raise Unavailable(f"log {uid}/{shard} {_REFUSALS[status]}, it was not fenced", reason=status)
        return int(reply[1])

    async def server(self, uid: str, shard: int) -> str:
        """Names the present life of the server that holds a log: it changes with every restart and failover."""
        with redis_errors(f"asking for the server of log {uid}/{shard}"):
            life: bytes = await _SERVER.run(self._client, shard_keys(self._keys, uid, shard), [])
        return life.decode()

    async def append(
        self, target: LogTarget, requests: Sequence[AppendRequest], timeout_s: float
    ) -> list[AppendResult | KintsugiError]:
        """Appends all requests in one call and returns one result or error per request, in order. Raises when nothing of
        the call was written, or nothing is known of it: see the reasons above."""
        keys = shard_keys(self._keys, target.uid, target.shard)
        of_shard = self._keys.shard(target.uid, target.shard)
        keys += [of_shard.request(request.request_id) for request in requests]
        args = self._arguments(target, requests)
        deadline = self._clock() + timeout_s
        uncertain = False
        while True:
            outcome = await self._attempt(keys, args, deadline)
            if not isinstance(outcome, _Failure):
                return self._results(target, requests, outcome, uncertain=uncertain)
            uncertain = uncertain or outcome.may_have_written
            if not uncertain:
                raise Unavailable(
                    f"{target} was not written: {_describe(outcome.error)}", reason=NOT_WRITTEN
                ) from outcome.error
            if self._clock() + _REPEAT_DELAY_S >= deadline:
                raise _unknown(target, outcome, timeout_s) from outcome.error
            await asyncio.sleep(_REPEAT_DELAY_S)

    async def _attempt(self, keys: list[str], args: list[bytes | str | int], deadline: float) -> list[Any] | _Failure:
        remaining_s = max(deadline - self._clock(), 0.001)
        try:
            async with asyncio.timeout(min(remaining_s, self._attempt_timeout_s)):
                reply: list[Any] = await _APPEND.run(self._client, keys, args)
                return reply
        except TimeoutError as error:
            return _Failure(error, may_have_written=True, timed_out=True)
        except REDIS_EXCEPTIONS as error:
            return _Failure(error, may_have_written=not _was_refused(error), timed_out=False)

    def _results(
        self, target: LogTarget, requests: Sequence[AppendRequest], reply: list[Any], *, uncertain: bool
    ) -> list[AppendResult | KintsugiError]:
        """Reads the script's reply. `uncertain`: an earlier attempt may have been written, so that a refusal of this one
        says nothing of it."""
        status = reply[0].decode()
        if status != "OK":
            detail = f": {reply[1].decode()}" if len(reply) > 1 else ""
            what = f"{target} {_REFUSALS[status]}{detail}"
            if uncertain:
                raise Unavailable(f"{what}; whether it was written before is unknown", reason=OUTCOME_UNKNOWN)
            raise Unavailable(f"{what}, expected {target.incarnation}/{target.epoch}", reason=status)
        return [
            _result(target, request, part, self._max_log_bytes, uncertain=uncertain)
            for request, part in zip(requests, reply[1], strict=True)
        ]

    def _arguments(self, target: LogTarget, requests: Sequence[AppendRequest]) -> list[bytes | str | int]:
        args: list[bytes | str | int] = [target.incarnation, target.epoch, target.floor.seq, target.floor.digest]
        args += [self._max_log_bytes, REQUEST_MEMORY_MS, len(requests), target.server]
        for request in requests:
            if not request.payloads:
                raise InvalidArgument("payloads", "is empty", "must have at least one")
            digests = [payload_digest(payload.data) for payload in request.payloads]
            content = request.content or sha1(b"".join(digests), usedforsecurity=False).digest()
            revision = "" if request.revision is None else request.revision
            args += [request.request_id, content, revision, len(digests)]
            for digest, payload in zip(digests, request.payloads, strict=True):
                args += [payload.records, digest, payload.data]
        return args


def _was_refused(error: BaseException) -> bool:
    """Whether the attempt certainly wrote nothing. An error reply comes before the script's first write, and a refused
    connection before anything was sent."""
    if isinstance(error, ResponseError | BusyLoadingError | AuthenticationError):
        return True
    cause: BaseException | None = error
    while cause is not None:
        # No socket file is to unix sockets what a refused connection is to others.
        if isinstance(cause, ConnectionRefusedError | FileNotFoundError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _unknown(target: LogTarget, failure: _Failure, timeout_s: float) -> KintsugiError:
    if failure.timed_out:
        message = f"{target} did not answer within {timeout_s:g} s, whether it was written is unknown"
        return DeadlineExceeded(message, reason=OUTCOME_UNKNOWN)
    message = f"{target} failed, whether it was written is unknown: {_describe(failure.error)}"
    return Unavailable(message, reason=OUTCOME_UNKNOWN)


def _result(
    target: LogTarget, request: AppendRequest, reply: list[bytes], max_log_bytes: int, *, uncertain: bool
) -> AppendResult | KintsugiError:
    match reply:
        case [b"WRITTEN" | b"REPEATED" as status, first, last, digest, epoch]:
            position = Position(int(epoch), int(last), digest)
            return AppendResult(request.request_id, int(first), position, repeated=status == b"REPEATED")
        case [b"REUSED"]:
            return InvalidArgument(
                "request_id",
                f"{request.request_id!r} was used for another content",
                "must be unique per distinct request",
                reason="REQUEST_ID_REUSED",
            )
        case [b"BEHIND", fence] if not uncertain:
            return Unavailable(
                f"request {request.request_id!r} was checked against revision {request.revision} of the registry, {target} "
                f"takes those of {int(fence)} and later",
                reason=REGISTRY_BEHIND,
                retry_delay_s=_REPEAT_DELAY_S,
            )
        case [b"FULL", _, size] if not uncertain and int(size) > max_log_bytes:
            return InvalidArgument(
                "documents",
                f"cost {int(size)} bytes in the log of one shard",
                f"must cost at most {max_log_bytes}, which it may hold",
                reason="LARGER_THAN_LOG",
            )
        case [b"FULL", kept, size] if not uncertain:
            return ResourceExhausted(
                f"{target} keeps {int(kept)} bytes, {int(size)} more would exceed its bound; replicas have to catch up",
                reason="LOG_FULL",
                retry_delay_s=FULL_RETRY_DELAY_S,
            )
        case _:
            return Unavailable(
                f"whether request {request.request_id!r} is in {target} is unknown", reason=OUTCOME_UNKNOWN
            )
