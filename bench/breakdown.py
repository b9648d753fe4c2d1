"""THE STORY OF `python -m bench breakdown`: where a shard's search time goes, by its own metrics.

A cluster is filled with the generated set and searched by one caller, then by sixteen, in windows. Before and after each
window the stage metrics of all shard servers are read; their difference is the time that the window's searches spent in
each stage. Stages are measured per micro-batch, so shares, other than times per query, do not depend on its size.
"""

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from bench import cluster, command, datasets
from bench.cluster import MeasuredCluster
from bench.datasets import Dataset
from bench.origin import Origin, columns
from bench.scrape import expositions
from bench.statistics import Spread, spread
from bench.workloads import SMOKE_DATASET, DatasetSpec
from kintsugi import AsyncClient
from kintsugi.metrics import Metric
from kintsugi.telemetry import metric_names as names

DATASET = DatasetSpec("generated-100k-384", 100_000, 384)
QUEUE = "queue"
# In the order of a search; a stage that is not known here comes last.
_ORDER = (QUEUE, "filter", "index", "scan", "rescore", "columns")

Tell = Callable[[str], None]
Seconds = dict[str, float]

_COLLECTION = "bench"
_CALLERS = (1, 16)


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    source: DatasetSpec
    encoding: str
    shards: int
    k: int
    rounds: int
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """`ms_per_query`: by stage, over the queries that each shard searched. `share`: of the time of the search thread,
    which waiting in its queue is no part of."""

    callers: int
    queries: int
    ms_per_query: dict[str, Spread]
    share: dict[str, Spread]


@dataclass(slots=True)
class BreakdownReport:
    origin: Origin
    plan: Plan
    encoding: str = ""
    loads: list[Breakdown] = field(default_factory=list)


def run(plan: Plan, command: list[str], tell: Tell) -> BreakdownReport:
    report = BreakdownReport(Origin.of(command), plan)
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name:
        folder = Path(name)
        tell(f"preparing {plan.source.name}")
        dataset = datasets.prepare(plan.source, folder, metric=Metric.COSINE, k=plan.k, seed=plan.seed, queries=1000)
        with cluster.started(folder / "cluster", plan.shards, 1, 1, pinned=True) as measured:
            measured.fill(_COLLECTION, dataset, plan.encoding)
            replicas = measured.replicas(_COLLECTION)
            report.encoding = ", ".join(sorted({one.encoding for r in replicas for one in r.index_versions}))
            for callers in _CALLERS:
                report.loads.append(_measure(measured, dataset, plan, callers))
                tell(f"  {callers} callers: {report.loads[-1].queries:,} searches by shards")
    return report


def _measure(measured: MeasuredCluster, dataset: Dataset, plan: Plan, callers: int) -> Breakdown:
    asyncio.run(_load(measured.address, dataset, plan, callers))
    windows: list[tuple[Seconds, float]] = []
    for _ in range(plan.rounds):
        before, queries_before = stages(measured)
        asyncio.run(_load(measured.address, dataset, plan, callers))
        after, queries_after = stages(measured)
        spent = {stage: after[stage] - before.get(stage, 0.0) for stage in after}
        windows.append((spent, queries_after - queries_before))
    return broken_down(callers, windows)


def broken_down(callers: int, windows: Sequence[tuple[Seconds, float]]) -> Breakdown:
    """From the seconds by stage, and the queries, of each window."""
    spent_at_all = {stage for spent, _ in windows for stage, seconds in spent.items() if seconds}
    found = sorted(spent_at_all, key=lambda stage: (_ORDER.index(stage) if stage in _ORDER else len(_ORDER), stage))
    worked = [sum(seconds for stage, seconds in spent.items() if stage != QUEUE) for spent, _ in windows]
    return Breakdown(
        callers=callers,
        queries=round(sum(queries for _, queries in windows)),
        ms_per_query={
            stage: spread([1000 * spent.get(stage, 0.0) / max(1.0, queries) for spent, queries in windows])
            for stage in found
        },
        share={
            stage: spread(
                [spent.get(stage, 0.0) / max(1e-9, total) for (spent, _), total in zip(windows, worked, strict=True)]
            )
            for stage in found
            if stage != QUEUE
        },
    )


async def _load(address: str, dataset: Dataset, plan: Plan, callers: int) -> None:
    end = asyncio.get_running_loop().time() + plan.seconds
    async with AsyncClient(address) as client, asyncio.TaskGroup() as tasks:
        for caller in range(callers):
            tasks.create_task(_call(client, np.roll(dataset.queries, -caller * 61, axis=0), plan.k, end))


async def _call(client: AsyncClient, queries: datasets.F32Matrix, k: int, end: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        for query in queries:
            if loop.time() >= end:
                return
            await client.search(_COLLECTION, query, k)


def stages(measured: MeasuredCluster) -> tuple[Seconds, float]:
    """The seconds by stage since the shard servers started, and the queries searched."""
    seconds: Seconds = defaultdict(float)
    queries = 0.0
    for exposition in expositions(measured, "shard"):
        of_server, of_queries = parse_stages(exposition)
        for stage, spent in of_server.items():
            seconds[stage] += spent
        queries += of_queries
    return seconds, queries


def parse_stages(exposition: str) -> tuple[Seconds, float]:
    seconds: Seconds = defaultdict(float)
    queries = 0.0
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == f"{names.SEARCH_STAGE_SECONDS.name}_sum":
                seconds[sample.labels["stage"]] += sample.value
            elif sample.name == f"{names.QUEUE_SECONDS.name}_sum":
                seconds[QUEUE] += sample.value
            elif sample.name == f"{names.BATCH_QUERIES.name}_sum":
                queries += sample.value
    return seconds, queries


def markdown(report: BreakdownReport) -> str:
    plan = report.plan
    head = (
        f"{report.origin.heading}\n\n"
        f"{plan.source.name}, {plan.shards} shards, encoding {plan.encoding} ({report.encoding}), k {plan.k}. Times are "
        f"per query and shard, medians of {plan.rounds}\nwindows (lowest..highest); the share is of the search thread's time."
    )
    parts = [head]
    for load in report.loads:
        rows = []
        for stage, ms in load.ms_per_query.items():
            share = load.share.get(stage)
            told = f"{share.median:.1%} ({share.low:.1%}..{share.high:.1%})" if share else ""
            rows.append([stage, f"{ms.median:.3f} ({ms.low:.3f}..{ms.high:.3f})", told])
        parts.append(f"## {load.callers} callers, {load.queries:,} searches")
        parts.append(columns(["stage", "ms", "share"], rows))
    return "\n\n".join(parts)


def main(argv: Sequence[str], tell: Tell) -> int:
    parser = command.parser("breakdown", __doc__)
    add = parser.add_argument
    add("--encoding", default="i8", help="default: i8")
    add("--shards", type=int, default=2, help="default: 2")
    add("--rounds", type=int, default=5, help="windows of each number of callers; default: 5")
    add("--seconds", type=float, default=4.0, help="of each window; default: 4")
    add("--seed", type=int, default=1, help="default: 1")
    given = parser.parse_args(list(argv))
    plan = Plan(
        source=SMOKE_DATASET if given.smoke else DATASET,
        encoding=given.encoding,
        shards=given.shards,
        k=10,
        rounds=1 if given.smoke else given.rounds,
        seconds=0.5 if given.smoke else given.seconds,
        seed=given.seed,
    )
    report = run(plan, ["breakdown", *argv], tell)
    command.publish(given.output, "breakdown", report, markdown(report))
    return 0
