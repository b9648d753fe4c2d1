"""The way of a search without the search: empty messages through as many gRPC hops, in the same places.

A client calls, or asks on a stream; a process in the middle asks one process per shard on streams that stay open, and answers
when all of them have. They run where their counterparts in the cluster do, on the same event loops, with messages of the size
of searches and answers, and do nothing else: whatever is built on grpcio takes at least as long. One message is under way at
a time.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import uvloop

from bench.child import Child
from bench.processes import CpuMeter, core_of, pin
from bench.statistics import percentile

_SERVICE = "kintsugi.bench.Hops"
_UNARY, _STREAM = "Unary", "Stream"
# Of ten hits.
_ANSWER = bytes(300)
_READY_S = 30.0

Ask = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Way:
    """Milliseconds that a message and its answer took, and the processor time of each by process."""

    p50_ms: float
    cpu_ms: dict[str, float]


class Hops:
    """The processes. `request_bytes`: the size of a query."""

    def __init__(self, shards: int, request_bytes: int, *, pinned: bool) -> None:
        self._stack = ExitStack()
        try:
            leaves = [self._stack.enter_context(Child(Leaf)) for _ in range(shards)]
            if pinned:
                for shard, leaf in enumerate(leaves):
                    pin(leaf.pid, core_of(shard))
            ports = [leaf.call(Leaf.port) for leaf in leaves]
            middle = self._stack.enter_context(Child(Middle, ports))
            self._caller = self._stack.enter_context(Child(Caller, middle.call(Middle.port), request_bytes))
        except BaseException:
            self.close()
            raise
        self._pids = {f"shard-{shard}": leaf.pid for shard, leaf in enumerate(leaves)}
        self._pids |= {"coordinator": middle.pid, "client": self._caller.pid}

    def measure(self, warmup_s: float, seconds: float, *, on_stream: bool) -> Way:
        """With one caller, whose messages are calls, or travel on a stream as the client library's do."""
        self._caller.call(Caller.run, on_stream, warmup_s)
        meter = CpuMeter(self._pids)
        latencies_ms: list[float] = self._caller.call(Caller.run, on_stream, seconds)
        count = max(1, len(latencies_ms))
        cpu_ms = {name: 1000 * spent / count for name, spent in meter.seconds().items()}
        return Way(percentile(latencies_ms, 50), cpu_ms)

    def close(self) -> None:
        self._stack.close()


class _Server:
    """Answers on a port, in a thread of its own with its own event loop, as long as the process lives."""

    def __init__(self, answer: Callable[[], Awaitable[Ask]]) -> None:
        self._port = 0
        self._is_ready = threading.Event()
        threading.Thread(target=self._live, args=(answer,), daemon=True).start()
        if not self._is_ready.wait(_READY_S):
            raise TimeoutError(f"the server is not ready after {_READY_S:g} s")

    def port(self) -> int:
        return self._port

    def _live(self, answer: Callable[[], Awaitable[Ask]]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(answer))

    async def _serve(self, answer: Callable[[], Awaitable[Ask]]) -> None:
        ask = await answer()

        async def unary(request: bytes, _context: Any) -> bytes:
            return await ask(request)

        async def stream(_requests: Any, context: Any) -> None:
            while (request := await context.read()) is not grpc.aio.EOF:
                await context.write(await ask(request))

        handlers: dict[str, Any] = {
            _UNARY: grpc.unary_unary_rpc_method_handler(unary),
            _STREAM: grpc.stream_stream_rpc_method_handler(stream),
        }
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        self._port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._is_ready.set()
        await server.wait_for_termination()


class Leaf(_Server):
    """Stands for a shard server."""

    def __init__(self) -> None:
        super().__init__(self._answer)

    async def _answer(self) -> Ask:
        async def ask(_request: bytes) -> bytes:
            return _ANSWER

        return ask


class Middle(_Server):
    """Stands for a coordinator."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        super().__init__(self._answer)

    async def _answer(self) -> Ask:
        streams = [_opened(_channel(port)) for port in self._ports]

        async def ask(request: bytes) -> bytes:
            for stream in streams:
                await stream.write(request)
            for stream in streams:
                await stream.read()
            return _ANSWER

        return ask


class Caller:
    def __init__(self, port: int, request_bytes: int) -> None:
        self._port = port
        self._request = bytes(request_bytes)

    def run(self, on_stream: bool, seconds: float) -> list[float]:
        """How many milliseconds each of the messages took that fit into the time."""
        return asyncio.run(self._run(on_stream, seconds))

    async def _run(self, on_stream: bool, seconds: float) -> list[float]:
        latencies_ms: list[float] = []
        async with _channel(self._port) as channel:
            ask = self._asking(channel, on_stream)
            until = time.perf_counter() + seconds
            while (started := time.perf_counter()) < until:
                await ask()
                latencies_ms.append(1000 * (time.perf_counter() - started))
        return latencies_ms

    def _asking(self, channel: Any, on_stream: bool) -> Callable[[], Coroutine[Any, Any, Any]]:
        if not on_stream:
            call = channel.unary_unary(f"/{_SERVICE}/{_UNARY}")

            async def unary() -> Any:
                return await call(self._request)

            return unary
        stream = _opened(channel)

        async def streamed() -> Any:
            await stream.write(self._request)
            return await stream.read()

        return streamed


def _channel(port: int) -> Any:
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}")


def _opened(channel: Any) -> Any:
    return channel.stream_stream(f"/{_SERVICE}/{_STREAM}")()
