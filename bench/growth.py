"""THE STORY OF `python -m bench growth`: what a search costs one caller when shards grow, and when there are more of them.

1. For each size of a shard, and for each number of shards of one size, a cluster of its own takes in a generated set.
   Candidates per hit are raised until recall is good: what is compared costs the same recall.
2. One caller searches all clusters in turns, round by round; the others are idle meanwhile.
3. p50 over the size of one shard gives an exponent. A model of the fan-out is fitted on one and two shards, tried on the
   most that were measured, and asked for more (fan_out).
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench import cluster, command, datasets
from bench.breakdown import QUEUE, stages
from bench.callers import LoadClient
from bench.child import Child
from bench.cluster import MeasuredCluster
from bench.datasets import Dataset
from bench.fan_out import F64
from bench.growth_chart import svg
from bench.growth_results import GOOD_RECALL, Grown, GrowthReport, Plan, Window, exponents, fitted, markdown
from bench.origin import Origin
from bench.processes import cores
from bench.recorder import Load
from bench.results import figures
from bench.workloads import DatasetSpec, SearchWorkload, searches_named
from kintsugi.metrics import Metric

Tell = Callable[[str], None]

# Candidates per hit: that of the encoding, then more.
OVERSAMPLINGS = (None, 5.0, 10.0, 20.0, 50.0, 100.0)

_COLLECTION = "bench"
(_ONE_CALLER,) = searches_named(["sdk-1"])


@dataclass(slots=True)
class Running:
    """One cluster, as it is searched. `loads` are those of its rounds."""

    vectors_per_shard: int
    cluster: MeasuredCluster
    client: Child[LoadClient]
    dataset: Dataset
    workload: SearchWorkload
    windows: list[Window] = field(default_factory=list)
    latencies_ms: list[F64] = field(default_factory=list)

    @property
    def shards(self) -> int:
        return sum(name.startswith("shard-") for name in self.cluster.pids)

    @property
    def grown(self) -> Grown:
        return Grown(self.vectors_per_shard, self.shards, self.workload.oversampling, self.windows)


def run(plan: Plan, command: list[str], tell: Tell) -> GrowthReport:
    report = GrowthReport(Origin.of(command), plan)
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name, ExitStack() as stack:
        running: dict[tuple[int, int], Running] = {}
        for vectors, shards in shapes(plan):
            one = _started(plan, vectors, shards, Path(name), stack)
            alike = running.get((vectors, 1))
            _make_good(plan, one, alike, tell)
            running[vectors, shards] = one
        for number in range(plan.rounds):
            tell(f"searches, round {number + 1} of {plan.rounds}")
            for one in running.values():
                _measure(plan, one, tell)
    report.sizes = [running[size, 1].grown for size in plan.sizes]
    report.fan_out = [running[plan.per_shard, shards].grown for shards in plan.shards]
    report.p50_exponent, report.search_exponent = exponents(report.sizes)
    report.model = fitted(report.fan_out, running[plan.per_shard, 1].latencies_ms, len(cores()))
    return report


def shapes(plan: Plan) -> list[tuple[int, int]]:
    """Vectors per shard and shards of all clusters, each once, those of one shard first."""
    wanted = [(size, 1) for size in plan.sizes] + [(plan.per_shard, shards) for shards in plan.shards]
    return sorted(set(wanted), key=lambda shape: (shape[1], shape[0]))


def _started(plan: Plan, vectors: int, shards: int, work: Path, stack: ExitStack) -> Running:
    folder = work / f"{vectors}x{shards}"
    folder.mkdir()
    spec = DatasetSpec(f"generated-{shards * vectors}-{plan.dimension}", shards * vectors, plan.dimension)
    dataset = datasets.prepare(spec, folder, metric=Metric.COSINE, k=plan.k, seed=plan.seed, queries=1000)
    measured = stack.enter_context(cluster.started(folder / "cluster", shards, 1, 1, pinned=True))
    arguments = (measured.address, _COLLECTION, str(dataset.queries_path), plan.k, "asyncio")
    client = stack.enter_context(Child(LoadClient, *arguments))
    measured.create(_COLLECTION, dataset)
    measured.pin()
    client.call(LoadClient.ingest, str(dataset.vectors_path), _COLLECTION)
    measured.settle()
    return Running(vectors, measured, client, dataset, _ONE_CALLER)


def _make_good(plan: Plan, one: Running, alike: Running | None, tell: Tell) -> None:
    """More shards of one size search as one of them does: together they find more, and what one costs stays the same."""
    recall = float("nan")
    for oversampling in OVERSAMPLINGS if alike is None else (alike.workload.oversampling,):
        one.workload = replace(one.workload, oversampling=oversampling)
        recall = figures(_load(plan, one), one.dataset.truth).recall
        if recall >= GOOD_RECALL:
            break
    tell(f"{one.shards} x {one.vectors_per_shard:,}: recall {recall:.4f}, oversampling {one.workload.oversampling}")


def _load(plan: Plan, one: Running) -> Load:
    pids = {"client": one.client.pid, **one.cluster.pids}
    load: Load = one.client.call(LoadClient.run, one.workload, pids, plan.warmup_s, plan.seconds)
    return load


def _measure(plan: Plan, one: Running, tell: Tell) -> None:
    before, queries_before = stages(one.cluster)
    load = _load(plan, one)
    after, queries_after = stages(one.cluster)
    searched_s = sum(seconds - before.get(stage, 0.0) for stage, seconds in after.items() if stage != QUEUE)
    told = figures(load, one.dataset.truth)
    cpu = told.cpu_ms_per_query
    window = Window(
        p50_ms=told.latency_ms["p50"],
        p99_ms=told.latency_ms["p99"],
        recall=told.recall,
        shard_cpu_ms=float(np.mean([ms for name, ms in cpu.items() if name.startswith("shard-")])),
        coordinator_cpu_ms=sum(ms for name, ms in cpu.items() if name.startswith("coordinator-")),
        search_ms=1000 * searched_s / max(1.0, queries_after - queries_before),
        cores_elsewhere=told.cores_elsewhere,
        errors=sum(told.errors.values()),
    )
    one.windows.append(window)
    one.latencies_ms.append(load.latencies_ms)
    tell(f"  {one.shards} x {one.vectors_per_shard:<9,} p50 {window.p50_ms:6.2f} ms   search {window.search_ms:.3f} ms")


def main(argv: Sequence[str], tell: Tell) -> int:
    parser = command.parser("growth", __doc__)
    add = parser.add_argument
    add("--dimension", type=int, default=128, help="default: 128")
    add("--size", type=int, action="append", metavar="VECTORS", help="of one shard; default: 50000, 200000, 1000000")
    add("--shards", type=int, action="append", help="how many; 1 and 2 are needed; default: 1, 2, 4")
    add("--per-shard", type=int, default=200_000, help="vectors of each of several shards; default: 200000")
    add("--rounds", type=int, default=7, help="default: 7")
    add("--seconds", type=float, default=4.0, help="of each window; default: 4")
    add("--seed", type=int, default=1, help="default: 1")
    given = parser.parse_args(list(argv))
    report = run(plan_of(given), ["growth", *argv], tell)
    path = command.publish(given.output, "growth", report, markdown(report))
    path.with_suffix(".svg").write_text(svg(report))
    return 0


def plan_of(given: argparse.Namespace) -> Plan:
    """Raises ValueError for what cannot be."""
    smoke: bool = given.smoke
    sizes = given.size or ((1500, 3000) if smoke else (50_000, 200_000, 1_000_000))
    shards = given.shards or ((1, 2, 3) if smoke else (1, 2, 4))
    if not {1, 2} <= set(shards) or min(shards) < 1:
        raise ValueError(f"shards is {', '.join(map(str, shards))}, must have 1 and 2, which the model is fitted on")
    if len(set(sizes)) < 2:
        raise ValueError(f"size is {', '.join(map(str, sizes))}, must be at least 2 different ones")
    return Plan(
        dimension=16 if smoke else given.dimension,
        sizes=tuple(sorted(set(sizes))),
        shards=tuple(sorted(set(shards))),
        per_shard=1500 if smoke else given.per_shard,
        k=10,
        rounds=1 if smoke else given.rounds,
        seconds=0.5 if smoke else given.seconds,
        warmup_s=0.2 if smoke else 1.0,
        seed=given.seed,
    )
