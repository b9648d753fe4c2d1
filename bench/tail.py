"""THE STORY OF `python -m bench tail`: what searches feel when one of two replicas becomes slow, and what sparing them costs.

1. Each shard has a replica on either of two shard servers. The second server was armed: while a file exists, each of its
   batches takes so much longer.
2. An open loop at a fixed rate, well below capacity, goes on in windows: all well and one slow, in turns. The slow window
   begins with the switch, so that finding out is counted; the well one begins a while after the switch back.
3. Of each window: latencies from the moment a call was due; second tries per first try, by the coordinator's metrics; and
   searches that shards did beyond one per query and shard.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import cluster, command, datasets
from bench.child import Child
from bench.cluster import MeasuredCluster
from bench.datasets import Dataset
from bench.injection import Injection
from bench.offering import Offer, OfferingClient, Outcomes
from bench.origin import Origin, columns
from bench.scrape import totals
from bench.statistics import Spread, percentile, recall, spread
from bench.workloads import DEFAULT_DATASET, SMOKE_DATASET, DatasetSpec
from kintsugi.metrics import Metric
from kintsugi.telemetry import metric_names as names

Tell = Callable[[str], None]

_COLLECTION = "bench"
_SLOWED = "shard-1"
_REPLICAS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    source: DatasetSpec
    shards: int
    rate: float
    injected_ms: int
    deadline_ms: float
    rounds: int
    seconds: float
    recovery_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Window:
    """`second_tries`: per first try. `extra_searches`: what shards searched beyond one search per query and shard, per that."""

    calls: int
    failures: dict[str, int]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float
    lag_p99_ms: float
    second_tries: float
    extra_searches: float
    recall: float
    cores_elsewhere: float


@dataclass(slots=True)
class TailReport:
    """Windows come in pairs, one of each per round."""

    origin: Origin
    plan: Plan
    well: list[Window] = field(default_factory=list)
    slow: list[Window] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Run:
    plan: Plan
    measured: MeasuredCluster
    client: Child[OfferingClient]
    dataset: Dataset

    @property
    def pids(self) -> dict[str, int]:
        return {"client": self.client.pid, **self.measured.pids}


def run(plan: Plan, command: list[str], tell: Tell) -> TailReport:
    report = TailReport(Origin.of(command), plan)
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name:
        folder = Path(name)
        tell(f"preparing {plan.source.name}")
        dataset = datasets.prepare(plan.source, folder, metric=Metric.COSINE, k=10, seed=plan.seed, queries=1000)
        injection = Injection(plan.injected_ms, folder / "slow")
        with cluster.started(folder / "cluster", plan.shards, _REPLICAS, 1, pinned=True) as measured:
            injection.arm(measured, [_SLOWED])
            measured.fill(_COLLECTION, dataset)
            arguments = (measured.address, _COLLECTION, str(dataset.queries_path), 10)
            with Child(OfferingClient, *arguments) as client:
                _measure(_Run(plan, measured, client, dataset), injection, report, tell)
    return report


def _measure(run: _Run, injection: Injection, report: TailReport, tell: Tell) -> None:
    for number in range(run.plan.rounds):
        _offered(run, run.plan.recovery_s, number)
        report.well.append(_window(run, number, None))
        report.slow.append(_window(run, number, injection))
        well, slow = report.well[-1], report.slow[-1]
        tell(
            f"round {number + 1} of {run.plan.rounds}: p99 {well.p99_ms:.1f} -> {slow.p99_ms:.1f} ms, second tries "
            f"{well.second_tries:.2%} -> {slow.second_tries:.2%}, extra searches {slow.extra_searches:.2%}"
        )


def _offered(run: _Run, seconds: float, number: int, injection: Injection | None = None) -> Outcomes:
    offer = Offer(run.plan.rate, run.plan.deadline_ms / 1000, seconds, run.plan.seed + number)
    found: Outcomes = run.client.call(OfferingClient.offer, offer, run.pids, injection)
    return found


def _window(run: _Run, number: int, injection: Injection | None) -> Window:
    coordinators, shards = totals(run.measured, "coordinator"), totals(run.measured, "shard")
    found = _offered(run, run.plan.seconds, number, injection)
    after, shards_after = totals(run.measured, "coordinator"), totals(run.measured, "shard")
    searches = f"{names.BATCH_QUERIES.name}_sum"
    return window_of(
        found,
        first_tries=found.calls * run.plan.shards,
        second_tries=after[names.SECOND_TRIES.name] - coordinators[names.SECOND_TRIES.name],
        searches=shards_after[searches] - shards[searches],
        reached=recall(found.found, run.dataset.truth),
    )


def window_of(found: Outcomes, first_tries: int, second_tries: float, searches: float, reached: float) -> Window:
    return Window(
        calls=found.calls,
        failures=found.failures,
        p50_ms=percentile(found.latencies_ms, 50),
        p90_ms=percentile(found.latencies_ms, 90),
        p99_ms=percentile(found.latencies_ms, 99),
        worst_ms=percentile(found.latencies_ms, 100),
        lag_p99_ms=percentile(found.lag_ms, 99),
        second_tries=second_tries / first_tries,
        extra_searches=searches / first_tries - 1,
        recall=reached,
        cores_elsewhere=found.cores_elsewhere,
    )


def rise_ms(report: TailReport) -> Spread:
    """Of the 99th percentile, round by round."""
    return spread([slow.p99_ms - well.p99_ms for well, slow in zip(report.well, report.slow, strict=True)])


def markdown(report: TailReport) -> str:
    plan, rise = report.plan, rise_ms(report)
    head = (
        f"{report.origin.heading}\n\n"
        f"{plan.source.name}, {plan.shards} shards of 2 replicas, {plan.rate:g} searches per second by chance, one of two shard "
        f"servers slowed by\n{plan.injected_ms} ms per batch. Medians of {plan.rounds} windows of {plan.seconds:g} s each "
        "(lowest..highest)."
    )
    cells = ["p50 ms", "p90 ms", "p99 ms", "worst ms", "client late p99 ms", "failures", "second tries", "extra searches",
             "recall", "cores elsewhere"]  # fmt: skip
    table = columns(["window", *cells], [_cells("all well", report.well), _cells("one slow", report.slow)])
    verdict = f"p99 rises by {rise.median:.1f} ms ({rise.low:.1f}..{rise.high:.1f})."
    return f"{head}\n\n{table}\n\n{verdict}"


def _cells(name: str, windows: Sequence[Window]) -> list[str]:
    def ranged(value: Callable[[Window], float], style: str) -> str:
        of = spread([value(window) for window in windows])
        return f"{of.median:{style}} ({of.low:{style}}..{of.high:{style}})"

    return [
        name,
        ranged(lambda window: window.p50_ms, ".1f"),
        ranged(lambda window: window.p90_ms, ".1f"),
        ranged(lambda window: window.p99_ms, ".1f"),
        ranged(lambda window: window.worst_ms, ".1f"),
        f"{spread([window.lag_p99_ms for window in windows]).median:.1f}",
        f"{sum(sum(window.failures.values()) for window in windows)}",
        ranged(lambda window: window.second_tries, ".2%"),
        ranged(lambda window: window.extra_searches, ".2%"),
        f"{spread([window.recall for window in windows]).median:.4f}",
        f"{spread([window.cores_elsewhere for window in windows]).high:.2f}",
    ]


def main(argv: Sequence[str], tell: Tell) -> int:
    parser = command.parser("tail", __doc__)
    add = parser.add_argument
    add("--shards", type=int, default=1, help="each with a replica on both servers; default: 1")
    add("--rate", type=float, default=200.0, help="searches per second; default: 200")
    add("--injected-ms", type=int, default=200, help="service time per batch of the slow server; default: 200")
    add("--deadline-ms", type=float, default=2000.0, help="of each call; default: 2000")
    add("--rounds", type=int, default=5, help="windows of each kind; default: 5")
    add("--seconds", type=float, default=15.0, help="of each window; default: 15")
    add("--recovery", type=float, default=8.0, help="seconds of load before a window of all well; default: 8")
    add("--seed", type=int, default=1, help="of the set, and of the arrivals; default: 1")
    given = parser.parse_args(list(argv))
    plan = Plan(
        source=SMOKE_DATASET if given.smoke else DEFAULT_DATASET,
        shards=given.shards,
        rate=50.0 if given.smoke else given.rate,
        injected_ms=given.injected_ms,
        deadline_ms=given.deadline_ms,
        rounds=1 if given.smoke else given.rounds,
        seconds=1.0 if given.smoke else given.seconds,
        recovery_s=0.5 if given.smoke else given.recovery,
        seed=given.seed,
    )
    report = run(plan, ["tail", *argv], tell)
    command.publish(given.output, "tail", report, markdown(report))
    return 0
