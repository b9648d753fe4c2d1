"""The client's connection to the coordinators: one address in use, the others in reserve, and attempts until the deadline.

1. A call sticks to one coordinator until it is UNAVAILABLE; then the next address is in use for all calls.
2. Every untried address gets its attempt at once; only then the calls back off.
3. An attempt gets all of the time that is left; nothing is attempted after the deadline.
Knows nothing of what is asked.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio
from opentelemetry.trace import TracerProvider

from kintsugi.errors import DeadlineExceeded, InvalidArgument, KintsugiError, Unavailable
from kintsugi.rpc.channels import ChannelPool
from kintsugi.rpc.errors import grpc_errors, is_told
from kintsugi.sdk.calling import Calling
from kintsugi.sdk.retry import RetryPolicy, at_the_deadline, is_retryable
from kintsugi.sdk.search_stream import SearchStream
from kintsugi.telemetry.tracing import client_metadata
from kintsugi.v1 import cluster_pb2_grpc, collections_pb2_grpc, documents_pb2_grpc, search_pb2_grpc, upgrades_pb2_grpc

if TYPE_CHECKING:
    from kintsugi.v1.cluster_pb2_grpc import ClusterAsyncStub
    from kintsugi.v1.collections_pb2_grpc import CollectionsAsyncStub
    from kintsugi.v1.documents_pb2_grpc import DocumentsAsyncStub
    from kintsugi.v1.upgrades_pb2_grpc import UpgradesAsyncStub

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stubs:
    """The services of one coordinator."""

    address: str
    collections: "CollectionsAsyncStub"
    documents: "DocumentsAsyncStub"
    search: SearchStream
    cluster: "ClusterAsyncStub"
    upgrades: "UpgradesAsyncStub"


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the connection sees it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Connection:
    """Belongs to the event loop and the process that make the first call: gRPC survives neither another loop nor a fork."""

    def __init__(
        self,
        addresses: Sequence[str],
        policy: RetryPolicy,
        clock: Clock,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        if not addresses or any(not isinstance(address, str) or ":" not in address for address in addresses):
            raise InvalidArgument("addresses", f"is {addresses!r}", "must be one or more of the form host:port")
        self.policy = policy
        self.clock = clock
        self._addresses = tuple(addresses)
        self._in_use = 0
        self._pool = ChannelPool(client_metadata)
        self._tracer_provider = tracer_provider
        self._stubs: dict[str, Stubs] = {}
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._closed = False

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._addresses

    @property
    def address(self) -> str:
        """The coordinator in use."""
        return self._addresses[self._in_use]

    def stubs(self) -> Stubs:
        """The services of the coordinator in use."""
        self._check_owner()
        address = self.address
        found = self._stubs.get(address)
        if found is None:
            channel = self._pool.get(address)
            found = self._stubs[address] = Stubs(
                address=address,
                collections=collections_pb2_grpc.CollectionsStub(channel),
                documents=documents_pb2_grpc.DocumentsStub(channel),
                search=SearchStream(search_pb2_grpc.SearchStub(channel)),
                cluster=cluster_pb2_grpc.ClusterStub(channel),
                upgrades=upgrades_pb2_grpc.UpgradesStub(channel),
            )
        return found

    def _check_owner(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")
        here = (os.getpid(), asyncio.get_running_loop())
        if self._owner is None:
            self._owner = here
        elif self._owner[0] != here[0]:
            raise RuntimeError(f"the client belongs to process {self._owner[0]}: make a new one after a fork")
        elif self._owner[1] is not here[1]:
            raise RuntimeError("the client belongs to another event loop: make one client per loop")

    def leave(self, address: str) -> None:
        """Puts the next address in use, unless another call has already left this one."""
        if self.address == address:
            self._in_use = (self._in_use + 1) % len(self._addresses)

    async def call(
        self,
        attempt: Callable[[Stubs, float], Awaitable[T]],
        timeout_s: float,
        is_settled: Callable[[T], bool] = lambda _: True,
        *,
        changes: bool = False,
    ) -> T:
        """Repeats `attempt(stubs, remaining seconds)` until it succeeds with a settled answer, fails for good, or no
        time is left for another one: then the last answer stands, or the last failure that the cluster itself told.
        `changes` says that an attempt without answer may have had an effect."""
        with self.calling():
            return await self._attempts(attempt, timeout_s, is_settled, changes=changes)

    async def stream(
        self, begin: "Callable[[Stubs, float], grpc.aio.UnaryStreamCall[Any, T]]", timeout_s: float
    ) -> AsyncIterator[T]:
        """The answers of `begin(stubs, remaining seconds)`. Attempts are repeated as by `call`, until the first answer."""

        async def first_of(stubs: Stubs, left_s: float) -> "tuple[grpc.aio.UnaryStreamCall[Any, T], T | None]":
            call = begin(stubs, left_s)
            return call, _answer(await call.read())

        call, answer = await self.call(first_of, timeout_s)
        try:
            while answer is not None:
                yield answer
                with grpc_errors():
                    answer = _answer(await call.read())
        finally:
            call.cancel()

    def calling(self) -> Calling:
        """What surrounds a call with all its attempts."""
        return Calling(self._tracer_provider)

    async def _attempts(
        self,
        attempt: Callable[[Stubs, float], Awaitable[T]],
        timeout_s: float,
        is_settled: Callable[[T], bool],
        *,
        changes: bool,
    ) -> T:
        deadline = self.clock.now() + timeout_s
        attempts = 0
        told: KintsugiError | None = None
        while True:
            stubs = self.stubs()
            failure: KintsugiError | None = None
            answer: T | None = None
            try:
                with grpc_errors():
                    answer = await attempt(stubs, max(0.0, deadline - self.clock.now()))
                if is_settled(answer):
                    return answer
            except KintsugiError as error:
                if isinstance(error, DeadlineExceeded) and (told is not None or not is_told(error)):
                    last = error if is_told(error) else _silence(stubs.address, timeout_s)
                    raise at_the_deadline(last, told, changes=changes) from error
                if not is_retryable(error):
                    raise
                if is_told(error):
                    failure = told = error
                else:
                    failure = _lost(stubs.address, error)
            delay_s = self.delay_after(stubs, attempts, failure)
            if self.clock.now() + delay_s >= deadline:
                if failure is not None:
                    raise at_the_deadline(failure, told, changes=changes)
                assert answer is not None
                return answer
            await self.clock.sleep(delay_s)
            attempts += 1

    def delay_after(self, stubs: Stubs, attempts: int, failure: KintsugiError | None) -> float:
        """The wait after a failed attempt, number `attempts` from 0, at `stubs`. Leaves a coordinator that is unavailable."""
        rounds, place = divmod(attempts, len(self._addresses))
        if isinstance(failure, Unavailable):
            self.leave(stubs.address)
            if place + 1 < len(self._addresses) and failure.retry_delay_s is None:
                return 0.0
        return self.policy.delay_s(rounds, failure)

    async def close(self) -> None:
        """Closes all channels; calls in flight are cancelled. Closing again does nothing."""
        self._closed = True
        stubs, self._stubs = self._stubs, {}
        for one in stubs.values():
            await one.search.close()
        await self._pool.close()


def _answer(read: Any) -> Any:
    """What was read of a stream, None at its end."""
    return None if read is grpc.aio.EOF else read


def _lost(address: str, error: KintsugiError) -> KintsugiError:
    """What gRPC itself says of a connection, in our words. Anything else as it is."""
    if not isinstance(error, Unavailable):
        return error
    detail = error.message.rpartition("Failed to connect to remote host: ")[2]
    message = f"the connection to the coordinator at {address} failed: {detail}"
    return Unavailable(message, reason="COORDINATOR_UNREACHABLE")


def _silence(address: str, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the coordinator at {address} did not answer within {timeout_s:g} s")
