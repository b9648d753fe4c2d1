"""THE STORY OF `python -m bench filters`: searches with filters, against a real cluster of processes.

1. The generated set gets attributes whose filters have a chosen selectivity and correlation with the query (filtered_set).
2. The cluster takes it in and settles.
3. One caller searches, for each kind of filter, every query with and without it in turns: the ratio of the medians tells
   what a filter costs. Recall is against exact search over the matches, and every search must return k hits, or as many
   as match.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import cluster, command
from bench.cluster import MeasuredCluster
from bench.datasets import Dataset, generate
from bench.filtered_set import CELLS, Cell, FilteredSet
from bench.origin import Origin, columns
from bench.statistics import IdMatrix, percentile
from bench.workloads import DEFAULT_DATASET, SMOKE_DATASET, DatasetSpec
from kintsugi import AsyncClient, Client
from kintsugi.metrics import Metric

Tell = Callable[[str], None]

_COLLECTION = "bench"
_INGEST_BLOCK = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    source: DatasetSpec
    shards: int
    anchors: int
    relatives: int
    k: int
    rounds: int
    seed: int


@dataclass(frozen=True, slots=True)
class FilterRow:
    """One kind of filter. `short`: searches that returned fewer hits than k and the matches allow. Times are medians of
    one caller; `ratio` is filtered per unfiltered."""

    name: str
    selectivity: float
    correlation: str
    matches: int
    recall: float
    least_recall: float
    searches: int
    short: int
    filtered_ms: float
    filtered_p99_ms: float
    unfiltered_ms: float
    ratio: float


@dataclass(slots=True)
class FilterReport:
    origin: Origin
    plan: Plan
    rows: list[FilterRow] = field(default_factory=list)


def run(plan: Plan, command: list[str], tell: Tell) -> FilterReport:
    report = FilterReport(Origin.of(command), plan)
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name:
        folder = Path(name)
        tell(f"preparing {plan.source.name}")
        vectors, queries = generate(plan.source, folder / "vectors.npy", plan.seed)
        prepared = FilteredSet(vectors, queries[: plan.anchors], plan.relatives, plan.seed)
        with cluster.started(folder / "cluster", plan.shards, 1, 1, pinned=True) as measured:
            _ingest(measured, folder, prepared, tell)
            for cell in CELLS:
                truth = list(prepared.truth(cell, plan.k))
                row = asyncio.run(_measure(measured.address, plan, prepared, cell, truth))
                report.rows.append(row)
                tell(
                    f"  {row.name:<20} recall {row.recall:.4f}  {row.filtered_ms:6.2f} ms, {row.ratio:.2f} of unfiltered"
                )
    return report


def _ingest(measured: MeasuredCluster, folder: Path, prepared: FilteredSet, tell: Tell) -> None:
    count = len(prepared.vectors)
    empty: IdMatrix = np.empty((0, 0), dtype=np.int64)
    dataset = Dataset("filters", Metric.COSINE, folder / "vectors.npy", folder / "queries.npy", empty)
    measured.create(_COLLECTION, dataset)
    measured.pin()
    started = time.monotonic()
    with Client(measured.address) as client:
        for start in range(0, count, _INGEST_BLOCK):
            numbers = np.arange(start, min(start + _INGEST_BLOCK, count), dtype=np.uint64)
            attributes = [prepared.attributes(int(number)) for number in numbers]
            vectors = prepared.vectors[start : start + len(numbers)]
            client.bulk_upsert(_COLLECTION, numbers, vectors, attributes=attributes, acknowledgement="searchable",
                               progress=False)  # fmt: skip
    tell(f"ingested {count / (time.monotonic() - started):,.0f} documents/s, settled after {measured.settle():.0f} s")


async def _measure(address: str, plan: Plan, prepared: FilteredSet, cell: Cell, truth: list[IdMatrix]) -> FilterRow:
    """The first round is a warm-up of both sides, and gives the recall."""
    filters = [prepared.filter(cell, query) for query in range(len(prepared.queries))]
    times: dict[bool, list[float]] = {True: [], False: []}
    recalls: list[float] = []
    short = 0
    async with AsyncClient(address) as client:
        for number in range(plan.rounds + 1):
            for query, filter_, true in zip(prepared.queries, filters, truth, strict=True):
                plain_ms, _ = await _search(client, query, plan.k, None)
                filtered_ms, found = await _search(client, query, plan.k, filter_)
                short += len(found) < len(true)
                if number:
                    times[True].append(filtered_ms)
                    times[False].append(plain_ms)
                else:
                    recalls.append(len(np.intersect1d(found, true)) / len(true))
    p50 = {filtered: percentile(values, 50) for filtered, values in times.items()}
    return FilterRow(
        name=cell.name,
        selectivity=cell.selectivity,
        correlation=cell.correlation.value,
        matches=int(np.count_nonzero(prepared.matches(cell, 0))),
        recall=float(np.mean(recalls)),
        least_recall=min(recalls),
        searches=(plan.rounds + 1) * len(filters),
        short=short,
        filtered_ms=p50[True],
        filtered_p99_ms=percentile(times[True], 99),
        unfiltered_ms=p50[False],
        ratio=p50[True] / p50[False],
    )


async def _search(client: AsyncClient, query: Any, k: int, filter_: dict[str, Any] | None) -> tuple[float, list[int]]:
    started = time.perf_counter()
    found = await client.search(_COLLECTION, query, k, filter=filter_)
    return 1000 * (time.perf_counter() - started), [int(hit.id) for hit in found]


def markdown(report: FilterReport) -> str:
    plan = report.plan
    head = (
        f"{report.origin.heading}\n\n"
        f"{plan.source.name}, {plan.shards} shards, k {plan.k}, {plan.anchors * plan.relatives} queries around "
        f"{plan.anchors} anchors, one caller.\nEach query runs with and without the filter in turns. short: searches "
        "with fewer hits than k and the matches allow."
    )
    names = ["filter", "matches", f"recall@{plan.k}", "worst query", "short", "p50 ms", "p99 ms", "unfiltered p50",
             "ratio"]  # fmt: skip
    rows = [
        [row.name, f"{row.matches:,}", f"{row.recall:.4f}", f"{row.least_recall:.2f}", f"{row.short} of {row.searches}",
         f"{row.filtered_ms:.2f}", f"{row.filtered_p99_ms:.2f}", f"{row.unfiltered_ms:.2f}", f"{row.ratio:.2f}"]
        for row in report.rows
    ]  # fmt: skip
    return f"{head}\n\n{columns(names, rows)}"


def main(argv: Sequence[str], tell: Tell) -> int:
    parser = command.parser("filters", __doc__)
    add = parser.add_argument
    add("--shards", type=int, default=2, help="default: 2")
    add("--anchors", type=int, default=16, help="queries that correlated filters are made for; default: 16")
    add("--relatives", type=int, default=4, help="queries around each of them; default: 4")
    add("--rounds", type=int, default=5, help="after a first one for warmth; default: 5")
    add("--seed", type=int, default=1, help="default: 1")
    given = parser.parse_args(list(argv))
    plan = Plan(
        source=SMOKE_DATASET if given.smoke else DEFAULT_DATASET,
        shards=given.shards,
        anchors=2 if given.smoke else given.anchors,
        relatives=2 if given.smoke else given.relatives,
        k=10,
        rounds=1 if given.smoke else given.rounds,
        seed=given.seed,
    )
    report = run(plan, ["filters", *argv], tell)
    command.publish(given.output, "filters", report, markdown(report))
    return 0
