"""What telemetry costs: `python -m bench.telemetry`.

1. Per call, in this process: what a server does around every call, for calls that are not traced and for traced ones.
2. Throughput of searches of two clusters of real processes, one that traces a part of its calls into a file and one that
   traces none, in interleaved rounds; their ratio round by round. CPU time per search beside it: on a machine that others
   use as well it says more than throughput.

Metrics are always counted, so both sides of the second have them.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import uvloop
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from bench.processes import cpu_seconds
from bench.statistics import Spread, ratio, spread
from kintsugi import AsyncClient, Client, Model
from kintsugi.local.cluster import VALKEY, LocalCluster
from kintsugi.rpc.served_calls import Method
from kintsugi.telemetry import tracing
from kintsugi.telemetry.trace_names import REQUEST_ID_KEY, TRACE_PARENT_KEY, SpanEvent

COLLECTION = "bench"
_SAMPLED = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
_CALLS = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    ratio: float
    rounds: int
    seconds: float
    callers: int
    vectors: int
    dimension: int


@dataclass(frozen=True, slots=True)
class Round:
    queries_per_s: float
    cpu_ms_per_query: float


# --- Per call


def per_call_us() -> dict[str, float]:
    """Microseconds of what surrounds one served call, by how it is traced."""
    method = Method("/kintsugi.v1.Search/Search")
    plain = ((REQUEST_ID_KEY, "0123456789abcdef"), ("user-agent", "grpc-python-asyncio/1.85.1"))
    sampled, unsampled = ((*plain, (TRACE_PARENT_KEY, _SAMPLED[:-1] + flag)) for flag in "10")

    def serve(metadata: tuple[tuple[str, str], ...]) -> Callable[[], None]:
        def call() -> None:
            served = method.begin(metadata)
            stages = tracing.Stages()
            for event in (SpanEvent.ADMIT, SpanEvent.PLAN, SpanEvent.FAN_OUT, SpanEvent.MERGE):
                stages.reached(event)
            tracing.outgoing_metadata()
            served.end("OK")
            tracing.carry(())

        return call

    found = {"tracing off": _best_us(serve(plain))}
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    tracing.record_to(provider, 0.0)
    found["tracing on, not drawn"] = _best_us(serve(plain))
    found["tracing on, caller said no"] = _best_us(serve(unsampled))
    found["traced, with 4 events"] = _best_us(serve(sampled))
    tracing.record_to(None, 0.0)
    return found


def _best_us(call: Callable[[], None]) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.thread_time()  # what others take of this machine does not count
        for _ in range(_CALLS):
            call()
        best = min(best, (time.thread_time() - started) / _CALLS * 1e6)
    return best


# --- Throughput


class Side:
    """One cluster, filled with the same vectors as the other."""

    def __init__(self, folder: Path, plan: Plan, environment: dict[str, str]) -> None:
        self.cluster = LocalCluster(folder, servers=2, env=environment)
        self._plan = plan
        self._queries = np.random.default_rng(2).normal(size=(256, plan.dimension)).astype(np.float32)

    def start(self) -> None:
        self.cluster.start()
        self.cluster.wait_ready()
        vectors = np.random.default_rng(1).normal(size=(self._plan.vectors, self._plan.dimension)).astype(np.float32)
        with Client(self.cluster.address) as client:
            client.create_collection(COLLECTION, Model("m", self._plan.dimension), shards=2, replicas=1)
            ids = list(range(len(vectors)))
            client.bulk_upsert(COLLECTION, ids, vectors, acknowledgement="searchable", progress=False)

    def run(self, seconds: float) -> Round:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._run(seconds))

    async def _run(self, seconds: float) -> Round:
        answered = 0
        end = time.perf_counter() + seconds
        before = self._cpu_seconds()

        async def caller(client: AsyncClient, number: int) -> None:
            nonlocal answered
            while time.perf_counter() < end:
                await client.search(COLLECTION, self._queries[(answered + number) % len(self._queries)], 10)
                answered += 1

        async with asyncio.TaskGroup() as callers, AsyncClient(self.cluster.address) as client:
            tasks = [callers.create_task(caller(client, number)) for number in range(self._plan.callers)]
            await asyncio.wait(tasks)
        return Round(answered / seconds, (self._cpu_seconds() - before) / max(answered, 1) * 1000)

    def _cpu_seconds(self) -> float:
        return sum(cpu_seconds(self.cluster.pid(name)) for name in self.cluster.names() if name != VALKEY)


def throughput(plan: Plan, folder: Path) -> dict[str, Spread]:
    off = Side(folder / "off", plan, {"KINTSUGI_TRACE_TO": ""})
    on = Side(
        folder / "on",
        plan,
        {"KINTSUGI_TRACE_TO": f"file:{folder / 'traces'}", "KINTSUGI_TRACE_RATIO": str(plan.ratio)},
    )
    rounds: dict[Side, list[Round]] = {off: [], on: []}
    try:
        for side in rounds:
            side.start()
            side.run(min(2.0, plan.seconds))
        for number in range(plan.rounds):
            # Whoever goes first meets the machine as the one before left it: take turns.
            for side in (off, on) if number % 2 else (on, off):
                rounds[side].append(side.run(plan.seconds))
    finally:
        for side in rounds:
            side.cluster.stop()
    rates = {side: [one.queries_per_s for one in rounds[side]] for side in rounds}
    costs = {side: [one.cpu_ms_per_query for one in rounds[side]] for side in rounds}
    return {
        "queries per second, tracing off": spread(rates[off]),
        f"queries per second, {plan.ratio:.0%} traced": spread(rates[on]),
        "ratio of throughput": ratio(rates[on], rates[off]),
        "cpu ms per query, tracing off": spread(costs[off]),
        f"cpu ms per query, {plan.ratio:.0%} traced": spread(costs[on]),
        "ratio of cpu per query": ratio(costs[on], costs[off]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.telemetry", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--ratio", type=float, default=0.01, help="part of the calls that is traced (default: 0.01)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each side (default: 7)")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds per round (default: 5)")
    parser.add_argument("--callers", type=int, default=16, help="searches at once (default: 16)")
    parser.add_argument("--vectors", type=int, default=20_000, help="vectors in the collection (default: 20000)")
    parser.add_argument("--dimension", type=int, default=128, help="dimension of the vectors (default: 128)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    chosen = vars(parser.parse_args())
    output: Path | None = chosen.pop("json")
    plan = Plan(**chosen)
    calls = per_call_us()
    for what, cost_us in calls.items():
        print(f"{what:40} {cost_us:8.2f} us per call")
    with tempfile.TemporaryDirectory() as folder:
        figures = throughput(plan, Path(folder))
    for what, figure in figures.items():
        print(f"{what:40} {figure.median:8.3f}   ({figure.low:.3f} to {figure.high:.3f})")
    if output is not None:
        result = {"plan": asdict(plan), "per_call_us": calls, "rounds": {k: asdict(v) for k, v in figures.items()}}
        output.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
