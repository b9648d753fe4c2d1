"""THE STORY OF `python -m bench mixed`: what a search costs while documents have vectors of two models, against a real cluster.

1. A cluster takes in the generated set, turned and blurred, as the vectors of an old model; the set itself is the new model's.
2. For each strategy an upgrade is planned and started, and part after part of the documents gets its new vector.
3. At each part one caller searches by both models in turns. A search of the old model is a plain one: it asks one index that
   holds all documents. The ratio of the medians tells what a mixed search costs.
4. What projections and calibration take of it is timed in this process, with the code of the shard servers.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import cluster, command
from bench.cluster import MeasuredCluster
from bench.datasets import F32Matrix, generate
from bench.origin import Origin, columns
from bench.statistics import percentile
from bench.workloads import DEFAULT_DATASET, SMOKE_DATASET, DatasetSpec
from kintsugi import AsyncClient, Client, Model
from kintsugi.metrics import Metric
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.linear import procrustes
from kintsugi.projections.strategy import Strategy
from kintsugi.sdk.upgrade_types import UpgradePlan
from shard.cross_batch import ANCHORS_USED
from shard.mixed_search import AnchorScores, Scale
from shard.rescore import Scored

Tell = Callable[[str], None]

FRACTIONS = (0.1, 0.5, 0.9)
STRATEGIES = (Strategy.BRIDGE, Strategy.MAP)
_OLD, _NEW = "old", "new"
_PAIRS = 4000
_ANCHORS = 1000
_BLUR = 0.02
_BATCH = 1000
_POLL_S, _STARTED_S = 0.5, 1800.0
# Documents that are scored in the other space, of each query.
_SCORED = 20
_MODELS = (_OLD, _NEW)


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    source: DatasetSpec
    strategies: tuple[Strategy, ...]
    shards: int
    k: int
    queries: int
    rounds: int
    compared: int
    seed: int


@dataclass(frozen=True, slots=True)
class MixedRow:
    """One strategy at one migrated fraction. Times are of whole searches by one caller; `crossing_ms` is what projections and
    calibration take of a mixed search in a shard, `share` that per plain p50; `recall` is against exact mixed search, and
    `projected` the part of the hits that has no new vector."""

    strategy: str
    migrated: float
    plain_ms: float
    plain_p99_ms: float
    mixed_ms: float
    mixed_p99_ms: float
    ratio: float
    crossing_ms: float
    share: float
    projected: float
    recall: float


@dataclass(slots=True)
class MixedReport:
    origin: Origin
    plan: Plan
    rows: list[MixedRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pair:
    """Documents and queries in the spaces of two models: the old one's are the new one's, turned, with noise."""

    old: F32Matrix
    new: F32Matrix
    old_queries: F32Matrix
    new_queries: F32Matrix

    @classmethod
    def of(cls, vectors: F32Matrix, queries: F32Matrix, asked: int, seed: int) -> "Pair":
        queries = queries[:asked]
        random = np.random.default_rng(seed)
        turn = np.linalg.qr(random.standard_normal((vectors.shape[1], vectors.shape[1])))[0].astype(np.float32)

        def turned(some: F32Matrix) -> F32Matrix:
            blur = _BLUR * random.standard_normal(some.shape, dtype=np.float32)
            return np.asarray(some @ turn + blur, dtype=np.float32)

        return cls(turned(vectors), vectors, turned(queries), queries)

    def plan(self, strategy: Strategy) -> UpgradePlan:
        """Fitted on some documents, with anchors out of others."""
        fitted, drawn = slice(0, _PAIRS), slice(len(self.old) - min(_ANCHORS, len(self.old) // 4), None)
        back = procrustes(Metric.COSINE, self.new[fitted], self.old[fitted])
        there = procrustes(Metric.COSINE, self.old[fitted], self.new[fitted])
        return UpgradePlan(
            Model(_NEW, self.new.shape[1]),
            strategy,
            "quantiles",
            back,
            Anchors(np.ascontiguousarray(self.old[drawn]), np.ascontiguousarray(self.new[drawn])),
            b"{}",
            bridge=back,
            gallery_map=there if strategy is Strategy.MAP else None,
        )


def run(plan: Plan, command: list[str], tell: Tell) -> MixedReport:
    report = MixedReport(Origin.of(command), plan)
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name:
        folder = Path(name)
        tell(f"preparing {plan.source.name}")
        pair = Pair.of(*generate(plan.source, folder / "vectors.npy", plan.seed), plan.queries, plan.seed)
        with cluster.started(folder / "cluster", plan.shards, 1, 1, pinned=True) as measured:
            for strategy in plan.strategies:
                _upgrade(measured, pair, strategy, report, tell)
    return report


def _upgrade(measured: MeasuredCluster, pair: Pair, strategy: Strategy, report: MixedReport, tell: Tell) -> None:
    """Of a collection of its own."""
    name, plan, count = strategy.value, report.plan, len(pair.old)
    spent_ms = crossing_ms(pair, strategy)
    with Client(measured.address, timeout_s=60.0) as client:
        model = Model(_OLD, pair.old.shape[1])
        client.create_collection(name, model, metric=Metric.COSINE.value, shards=plan.shards, replicas=1)
        measured.pin()
        client.bulk_upsert(name, range(count), pair.old, acknowledgement="searchable", progress=False)
        client.upgrade_plan(name, pair.plan(strategy))
        client.upgrade_start(name)
        _await_backfilling(client, name)
        tell(f"{name}: {count:,} documents are there, the upgrade has begun")
        migrated = 0
        for fraction in FRACTIONS:
            until = round(fraction * count)
            _migrate(client, name, pair, range(migrated, until))
            migrated = until
            measured.settle()
            row = asyncio.run(_measure(measured.address, name, plan, pair, fraction, spent_ms))
            report.rows.append(row)
            tell(f"  {name} {fraction:.0%}: {row.mixed_ms:.2f} ms, {row.ratio:.2f} of plain, recall {row.recall:.3f}")
        client.delete_collection(name)


def _await_backfilling(client: Client, name: str) -> None:
    end = time.monotonic() + _STARTED_S
    while (status := client.upgrade_status(name)).upgrade.state != "backfilling":
        if time.monotonic() > end:
            raise TimeoutError(f"the upgrade of {name} is {status.upgrade.state} after {_STARTED_S:g} s")
        time.sleep(_POLL_S)


def _migrate(client: Client, name: str, pair: Pair, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, _BATCH):
        some = range(start, min(start + _BATCH, numbers.stop))
        versions = [document.version for document in client.get(name, some)]
        last = some.stop == numbers.stop
        client.put_vectors(name, _NEW, some, versions, pair.new[some.start : some.stop],
                           acknowledgement="searchable" if last else "durable")  # fmt: skip


async def _measure(address: str, name: str, plan: Plan, pair: Pair, fraction: float, spent_ms: float) -> MixedRow:
    """The first round is a warm-up of both sides, and gives the recall."""
    times: dict[str, list[float]] = {model: [] for model in _MODELS}
    recalls: list[float] = []
    projected: list[bool] = []
    async with AsyncClient(address, timeout_s=60.0) as client:
        for number in range(plan.rounds + 1):
            for queries in zip(pair.old_queries, pair.new_queries, strict=True):
                for model, query in zip(_MODELS, queries, strict=True):
                    started = time.perf_counter()
                    found = await client.search(name, query, plan.k, model=model)
                    if number:
                        times[model].append(1000 * (time.perf_counter() - started))
                projected += [hit.projected for hit in found]
                if not number and len(recalls) < plan.compared:
                    true = await client.search(name, queries[1], plan.k, model=_NEW, exact=True)
                    recalls.append(len({hit.id for hit in found} & {hit.id for hit in true}) / plan.k)
    plain, mixed = (percentile(times[model], 50) for model in _MODELS)
    return MixedRow(
        strategy=name,
        migrated=fraction,
        plain_ms=plain,
        plain_p99_ms=percentile(times[_OLD], 99),
        mixed_ms=mixed,
        mixed_p99_ms=percentile(times[_NEW], 99),
        ratio=mixed / plain,
        crossing_ms=spent_ms,
        share=spent_ms / plain,
        projected=float(np.mean(projected)),
        recall=float(np.mean(recalls)),
    )


def crossing_ms(pair: Pair, strategy: Strategy) -> float:
    """The median, over queries, of what a shard does because there are two spaces: a query or some documents are projected, the
    anchors are scored in both spaces, and the documents' scores are calibrated."""
    plan = pair.plan(strategy)
    assert isinstance(plan.anchors, Anchors), "as they were made"
    is_mapped = strategy is Strategy.MAP
    projection = plan.gallery_map if is_mapped else plan.bridge
    assert projection is not None, "both strategies project something"
    assert not isinstance(projection, bytes), "as they were made"
    others = projection.apply(plan.anchors.old) if is_mapped else plan.anchors.old
    scale = Scale(
        Calibration.QUANTILES,
        AnchorScores(Metric.COSINE, plan.anchors.new[:ANCHORS_USED]),
        AnchorScores(Metric.COSINE, others[:ANCHORS_USED]),
    )
    rows = np.arange(_SCORED, dtype=np.uint64)
    spent = []
    for number in range(len(pair.new_queries)):
        query = pair.new_queries[number : number + 1]
        started = time.perf_counter()
        if is_mapped:
            projection.apply(pair.old[:_SCORED])
        other = query if is_mapped else projection.apply(query)
        scale.of(query, other).calibrated(0, Scored(rows, np.linspace(1.0, 0.5, _SCORED)))
        spent.append(1000 * (time.perf_counter() - started))
    return percentile(spent, 50)


def markdown(report: MixedReport) -> str:
    plan = report.plan
    head = (
        f"{report.origin.heading}\n\n"
        f"{plan.source.name} and a second model, {plan.shards} shards, k {plan.k}, {plan.queries} queries, {plan.rounds} "
        "rounds, one caller.\nEach query is searched by the old model (plain) and by the new one (mixed) in turns. crossing: "
        "projections and\ncalibration in a shard, and their share of the plain p50."
    )
    names = ["strategy", "migrated", "plain p50 ms", "p99 ms", "mixed p50 ms", "p99 ms", "ratio", "crossing ms", "share",
             "projected hits", f"recall@{plan.k}"]  # fmt: skip
    rows = [
        [row.strategy, f"{row.migrated:.0%}", f"{row.plain_ms:.2f}", f"{row.plain_p99_ms:.2f}", f"{row.mixed_ms:.2f}",
         f"{row.mixed_p99_ms:.2f}", f"{row.ratio:.2f}", f"{row.crossing_ms:.3f}", f"{row.share:.1%}",
         f"{row.projected:.1%}", f"{row.recall:.4f}"]
        for row in report.rows
    ]  # fmt: skip
    return f"{head}\n\n{columns(names, rows)}"


def main(argv: Sequence[str], tell: Tell) -> int:
    parser = command.parser("mixed", __doc__)
    add = parser.add_argument
    add("--strategy", action="append", choices=[one.value for one in STRATEGIES], help="default: both")
    add("--shards", type=int, default=2, help="default: 2")
    add("--queries", type=int, default=200, help="default: 200")
    add("--rounds", type=int, default=5, help="after a first one for warmth; default: 5")
    add("--compared", type=int, default=40, help="queries whose recall is measured; default: 40")
    add("--seed", type=int, default=1, help="default: 1")
    given = parser.parse_args(list(argv))
    plan = Plan(
        source=SMOKE_DATASET if given.smoke else DEFAULT_DATASET,
        strategies=tuple(map(Strategy, given.strategy)) if given.strategy else STRATEGIES,
        shards=given.shards,
        k=10,
        queries=10 if given.smoke else given.queries,
        rounds=1 if given.smoke else given.rounds,
        compared=given.compared,
        seed=given.seed,
    )
    report = run(plan, ["mixed", *argv], tell)
    command.publish(given.output, "mixed", report, markdown(report))
    return 0
