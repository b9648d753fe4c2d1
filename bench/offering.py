"""Searches by plain unary gRPC, one query per call, as an open loop or a closed one, inside the client process.

1. An open loop does not wait for answers: arrivals come by chance (Poisson, seeded) at a fixed mean rate, whatever the
   cluster does. A latency counts from the moment at which the call was due, so that a late client, too, is seen.
2. Every call has a deadline, counted from that moment. An answer behind it is no good; a call that the client could not
   send before it is an outcome of its own.
3. The client is cheap, for it shares the machine: requests are made before, and answers are read after the window.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
import uvloop

from bench.datasets import F32Matrix
from bench.injection import Injection
from bench.processes import CpuMeter
from bench.statistics import NO_HIT, NOT_ASKED, IdMatrix
from kintsugi.v1 import search_pb2

_METHOD = "/kintsugi.v1.Search/Search"
# A call of a closed loop is never refused for want of time.
_PATIENT_S = 60.0
NOT_SENT = "NOT_SENT"
OK = grpc.StatusCode.OK.name

Send = Callable[..., Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Offer:
    """An open loop: `rate` calls per second, by chance, each to be answered within its deadline."""

    rate: float
    deadline_s: float
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the calls that were due in one window; of a closed loop, of those that ended in it. `latencies_ms` are
    those of answers, `failures` counts the others by status; `lag_ms`: how late the client sent."""

    seconds: float
    calls: int
    latencies_ms: npt.NDArray[np.float64]
    failures: dict[str, int]
    lag_ms: npt.NDArray[np.float64]
    found: IdMatrix
    cpu_s: dict[str, float]
    cores_elsewhere: float

    def within(self, deadline_s: float) -> int:
        """Answers that came in time."""
        return int((self.latencies_ms <= 1000 * deadline_s).sum())


@dataclass(slots=True)
class _Window:
    """Collects outcomes."""

    pids: dict[str, int]
    queries: int
    answers: dict[int, bytes] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    counts: bool = False
    _meter: CpuMeter | None = None
    _opened: float = 0.0
    _spent: tuple[float, dict[str, float], float] = (0.0, {}, 0.0)

    def open(self) -> None:
        self._meter, self._opened, self.counts = CpuMeter(self.pids), time.perf_counter(), True

    def close(self) -> None:
        assert self._meter is not None
        self._spent = time.perf_counter() - self._opened, self._meter.seconds(), self._meter.seconds_elsewhere()

    def answered(self, query: int, due: float, answer: bytes) -> None:
        self.latencies_s.append(time.perf_counter() - due)
        self.answers[query] = answer

    def outcomes(self, k: int) -> Outcomes:
        found = np.full((self.queries, k), NOT_ASKED, dtype=np.int64)
        for query, answer in self.answers.items():
            ids = [hit.id.integer for hit in search_pb2.SearchResponse.FromString(answer).hits]
            found[query] = ids + [NO_HIT] * (k - len(ids))
        seconds, cpu_s, elsewhere_s = self._spent
        return Outcomes(
            seconds=seconds,
            calls=len(self.latencies_s) + sum(self.failures.values()),
            latencies_ms=1000 * np.array(self.latencies_s, dtype=np.float64),
            failures=dict(self.failures),
            lag_ms=1000 * np.array(self.lags_s, dtype=np.float64),
            found=found,
            cpu_s=cpu_s,
            cores_elsewhere=elsewhere_s / seconds,
        )


class OfferingClient:
    """Lives in the client process."""

    def __init__(self, address: str, collection: str, queries_path: str, k: int) -> None:
        self._address = address
        self._k = k
        queries: F32Matrix = np.load(queries_path)
        options = search_pb2.SearchOptions(k=k)
        self._requests = [
            search_pb2.SearchRequest(
                collection=collection, vectors=[search_pb2.QueryVector(data=query.tobytes())], options=options
            ).SerializeToString()
            for query in queries
        ]

    def saturate(self, callers: int, pids: dict[str, int], warmup_s: float, seconds: float) -> Outcomes:
        """A closed loop of many callers: what the cluster can give."""
        window = _Window(pids, len(self._requests))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._saturate(window, callers, warmup_s, seconds))
        return window.outcomes(self._k)

    def offer(self, offer: Offer, pids: dict[str, int], injection: Injection | None = None) -> Outcomes:
        """An open loop. The injection is on from its first call to its last outcome."""
        window = _Window(pids, len(self._requests))
        switched = nullcontext() if injection is None else injection.on()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._offer(window, offer, switched))
        return window.outcomes(self._k)

    async def _saturate(self, window: _Window, callers: int, warmup_s: float, seconds: float) -> None:
        ended = asyncio.Event()

        async def caller(number: int) -> None:
            query = number * 61
            while not ended.is_set():
                query = (query + 1) % len(self._requests)
                await self._call(send, window, query, time.perf_counter(), _PATIENT_S)

        async with grpc.aio.insecure_channel(self._address) as channel, asyncio.TaskGroup() as tasks:
            send: Send = channel.unary_unary(_METHOD)
            for number in range(callers):
                tasks.create_task(caller(number))
            await asyncio.sleep(warmup_s)
            window.open()
            await asyncio.sleep(seconds)
            window.close()
            window.counts = False
            ended.set()

    async def _offer(self, window: _Window, offer: Offer, switched: AbstractContextManager[None]) -> None:
        offsets = arrivals(offer)
        async with grpc.aio.insecure_channel(self._address) as channel:
            send: Send = channel.unary_unary(_METHOD)
            await channel.channel_ready()
            window.open()
            begun = time.perf_counter()
            with switched:
                async with asyncio.TaskGroup() as tasks:
                    for number, offset in enumerate(offsets):
                        due = begun + offset
                        if (early := due - time.perf_counter()) > 0:
                            await asyncio.sleep(early)
                        query = number % len(self._requests)
                        tasks.create_task(self._call(send, window, query, due, offer.deadline_s))
                        if number % 16 == 0:  # a late client must see answers while it catches up
                            await asyncio.sleep(0)
                    await asyncio.sleep(max(0.0, begun + offer.seconds - time.perf_counter()))
                    window.close()  # of CPU time; what is still on its way was due in it, and counts

    async def _call(self, send: Send, window: _Window, query: int, due: float, deadline_s: float) -> None:
        lag = max(0.0, time.perf_counter() - due)
        if lag >= deadline_s:
            window.failures[NOT_SENT] += 1
            return
        try:
            answer = await send(self._requests[query], timeout=deadline_s - lag)
        except grpc.aio.AioRpcError as error:
            if window.counts:
                window.failures[error.code().name] += 1
        else:
            if window.counts:
                window.answered(query, due, answer)
        if window.counts:
            window.lags_s.append(lag)


def arrivals(offer: Offer) -> list[float]:
    """When calls are due, in seconds from the beginning: independent of each other, as those of many users are."""
    random = np.random.default_rng(offer.seed)
    count = max(1, round(offer.rate * offer.seconds))
    # Of so many arrivals in an interval, each is anywhere in it: a Poisson process, given their number.
    return [float(at) for at in np.sort(random.uniform(0.0, offer.seconds, count))]
