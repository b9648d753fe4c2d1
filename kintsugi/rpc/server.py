"""The gRPC side of a server process: its port, health, reflection, message limits, errors, and its shutdown.

Guarantees: no traceback leaves the process; every error carries rich details; two processes never share a port
silently; health of "" and of every service says the same, and health of LIVENESS only that the process answers.
Knows nothing about what the services do.
"""

import asyncio
import faulthandler
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from kintsugi.errors import KintsugiError, Unavailable
from kintsugi.limits import DEFAULT_DEADLINE_S
from kintsugi.math_threads import keep_one_math_thread
from kintsugi.process_memory import collect_seldom, keep_one_heap
from kintsugi.rpc.channels import LIMIT_OPTIONS
from kintsugi.rpc.interceptor import ErrorInterceptor
from kintsugi.telemetry import LogEvent, logger

Servicer_contra = TypeVar("Servicer_contra", contravariant=True)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *LIMIT_OPTIONS,
    # Without this, a second process on the same port starts happily and takes half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Clients ping every 30 s (channels.py).
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)

# A health service of its own, SERVING from start to stop: whoever restarts what hangs must not restart a process that
# only replays or drains, and so does not serve.
LIVENESS = "liveness"

# Longer than any deadline we assume, so that draining ends by itself.
DEFAULT_GRACE_S = DEFAULT_DEADLINE_S


class AddToServer(Protocol[Servicer_contra]):
    """A generated add_XServicer_to_server."""

    def __call__(self, servicer: Servicer_contra, server: Any) -> None: ...


class _RecordingServer:
    """Passes registrations on and remembers the full names of the services, for health and reflection."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        self.names += [handler.service_name() for handler in handlers]
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self._server.add_registered_method_handlers(service, handlers)


class RpcServer:
    """`async with RpcServer(listen) as server:` after add() for each service; health starts as NOT_SERVING."""

    def __init__(self, listen: str) -> None:
        # gRPC's own objects belong to the event loop, so they are made in __aenter__; this may run in any thread.
        self._listen = listen
        self._registrations: list[Callable[[Any], None]] = []
        self._names: tuple[str, ...] = ()
        self._server: grpc.aio.Server | None = None
        self._health: health.aio.HealthServicer | None = None
        self.port = 0
        # Set when stop() begins: streams that never end by themselves end then.
        self.draining = asyncio.Event()

    def add(self, add_to_server: AddToServer[Servicer_contra], servicer: Servicer_contra) -> None:
        """Serves a servicer, given its generated add_XServicer_to_server. Only before `async with`."""
        self._registrations.append(partial(add_to_server, servicer))

    @property
    def address(self) -> str:
        """The host that was asked for, with the port that was got."""
        return f"{self._listen.rpartition(':')[0]}:{self.port}"

    @property
    def services(self) -> tuple[str, ...]:
        """The full names of our services, without health and reflection."""
        return self._names

    async def __aenter__(self) -> Self:
        server = self._server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=SERVER_OPTIONS)
        self._names = self._register(server)
        self._health = health.aio.HealthServicer()
        await self.set_serving(serving=False)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        try:
            self.port = server.add_insecure_port(self._listen)
        except RuntimeError as error:
            raise Unavailable(f"listen is {self._listen}, must be a free port of this machine") from error
        await server.start()
        logger("rpc").info(LogEvent.RPC_LISTENING, address=self.address, services=self.services)
        return self

    def _register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        recorder = _RecordingServer(server)
        for register in self._registrations:
            register(recorder)
        return tuple(recorder.names)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failure nobody can answer what is in flight.
        await self.stop(0 if error else DEFAULT_GRACE_S)

    async def set_serving(self, *, serving: bool) -> None:
        """Sets the health of "" and of every service. Does nothing before `async with`."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        if self._health is not None:
            for name in ("", *self._names):
                await self._health.set(name, status)

    async def stop(self, grace_s: float = DEFAULT_GRACE_S) -> None:
        """Refuses new calls at once and returns when those in flight are done, or cancelled after the grace.
        Callers first set health to not serving and take themselves out of the registry. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            self.draining.set()
            await self.set_serving(serving=False)
            await server.stop(grace_s)


class HasTimeRemaining(Protocol):
    """What tells how long a call may take: gRPC's context, or that of a call on a stream."""

    def time_remaining(self) -> float | None: ...


def remaining_s(context: HasTimeRemaining) -> float:
    """The time left for a call: its deadline, or the assumed one when the caller gave none."""
    remaining = context.time_remaining()
    return DEFAULT_DEADLINE_S if remaining is None else remaining


def run_process(main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Runs a process on uvloop until main returns and gives its exit code. SIGTERM and SIGINT set the event that
    main gets; main drains and returns. An error of ours is logged in one line, any other one with its traceback, and a
    crash in native code with the stacks of all threads."""
    faulthandler.enable()
    keep_one_heap()
    keep_one_math_thread()
    collect_seldom()
    log = logger("process")

    async def run() -> None:
        stop = asyncio.Event()

        def request_stop(received: signal.Signals) -> None:
            log.info(LogEvent.PROCESS_STOPPING, signal=received.name)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, request_stop, number)
        await main(stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except KintsugiError as error:
        log.error(LogEvent.PROCESS_REFUSED, message=error.message, reason=error.reason)
        return 1
    except Exception:
        log.exception(LogEvent.PROCESS_FAILED)
        return 1
    log.info(LogEvent.PROCESS_STOPPED)
    sys.stderr.flush()
    return 0
