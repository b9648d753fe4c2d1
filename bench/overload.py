"""THE STORY OF `python -m bench overload`: what the cluster still gives when more is asked of it than it can give.

1. Capacity: a closed loop of many callers, what the cluster answers at best.
2. Offers: an open loop at a half, once and twice that capacity, each call with a deadline. Goodput counts the answers that
   came within it; the others were refused, the cheaper and sooner the better.
3. Both with service time injected into each batch of the shard servers, and without. Injected time uses no processor, and
   the queries that run at once are bounded meanwhile: so the shards are the limit, and neither coordinator nor client is.

A round is a capacity and its offers, so that ratios are taken within some seconds of each other.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from bench import cluster, command, datasets
from bench.child import Child
from bench.cluster import MeasuredCluster
from bench.datasets import Dataset
from bench.injection import Injection
from bench.offering import Offer, OfferingClient, Outcomes
from bench.origin import Origin, columns
from bench.scrape import Totals, totals
from bench.statistics import Spread, percentile, recall, spread
from bench.workloads import DEFAULT_DATASET, SMOKE_DATASET, DatasetSpec
from kintsugi.metrics import Metric
from kintsugi.telemetry import metric_names as names

Tell = Callable[[str], None]

FACTORS = (0.5, 1.0, 2.0)
_COLLECTION = "bench"
_CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    source: DatasetSpec
    shards: int
    injected_ms: int
    running: int
    deadline_ms: float
    callers: int
    rounds: int
    seconds: float
    warmup_s: float
    seed: int

    @property
    def deadline_s(self) -> float:
        return self.deadline_ms / 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One window. `factor` is of the capacity, None for the closed loop that finds it. `of_capacity`: goodput per that of the
    round's closed loop. `cpu_ms` is by process and answer; `refusal_cpu_ms` what a refusal took, None where few were refused:
    what remains of the processor time when answers are taken to cost what they did at capacity. `shard_busy`: the part of the
    window that the search threads worked or were held."""

    factor: float | None
    offered_per_s: float
    goodput_per_s: float
    of_capacity: float
    failures_per_s: dict[str, float]
    p50_ms: float
    p99_ms: float
    lag_p99_ms: float
    recall: float
    cpu_ms: dict[str, float]
    refusal_cpu_ms: dict[str, float] | None
    shard_busy: float
    cores_elsewhere: float


@dataclass(slots=True)
class Phase:
    """With an injection or without, all rounds."""

    injected_ms: int
    running: int | None
    rounds: list[list[Row]] = field(default_factory=list)


@dataclass(slots=True)
class OverloadReport:
    origin: Origin
    plan: Plan
    phases: list[Phase] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Run:
    plan: Plan
    measured: MeasuredCluster
    client: Child[OfferingClient]
    dataset: Dataset
    injection: Injection
    tell: Tell

    @property
    def pids(self) -> dict[str, int]:
        return {_CLIENT: self.client.pid, **self.measured.pids}


def run(plan: Plan, command: list[str], tell: Tell) -> OverloadReport:
    report = OverloadReport(Origin.of(command), plan)
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name:
        folder = Path(name)
        tell(f"preparing {plan.source.name}")
        dataset = datasets.prepare(plan.source, folder, metric=Metric.COSINE, k=10, seed=plan.seed, queries=1000)
        injection = Injection(plan.injected_ms, folder / "slow")
        with cluster.started(folder / "cluster", plan.shards, 1, 1, pinned=True) as measured:
            injection.arm(measured, [one for one in measured.local.names() if one.startswith("shard-")])
            measured.fill(_COLLECTION, dataset)
            arguments = (measured.address, _COLLECTION, str(dataset.queries_path), 10)
            with Child(OfferingClient, *arguments) as client:
                one = _Run(plan, measured, client, dataset, injection, tell)
                report.phases.append(_phase(one, Phase(plan.injected_ms, plan.running)))
                report.phases.append(_phase(one, Phase(0, None)))
    return report


def _phase(run: _Run, phase: Phase) -> Phase:
    bound = {} if phase.running is None else {"KINTSUGI_MAX_RUNNING_QUERIES": str(phase.running)}
    run.measured.restart(["coordinator-0"], bound)
    with run.injection.on() if phase.injected_ms else nullcontext():
        for number in range(run.plan.rounds):
            run.tell(f"{phase.injected_ms} ms injected, round {number + 1} of {run.plan.rounds}")
            phase.rounds.append(_round(run, phase, number))
    return phase


def _round(run: _Run, phase: Phase, number: int) -> list[Row]:
    plan, client = run.plan, run.client
    before = totals(run.measured, "shard")
    found: Outcomes = client.call(OfferingClient.saturate, plan.callers, run.pids, plan.warmup_s, plan.seconds)
    if not found.calls - sum(found.failures.values()):
        raise RuntimeError(
            f"the closed loop has no answers, must have some to know a capacity; it saw {found.failures}"
        )
    busy = _busy(run, before, plan.warmup_s + found.seconds, phase.injected_ms)
    at_capacity = row_of(None, found, None, float("inf"), recall(found.found, run.dataset.truth), busy)
    rows = [at_capacity]
    for factor in FACTORS:
        offer = Offer(factor * at_capacity.goodput_per_s, plan.deadline_s, plan.seconds, plan.seed + number)
        before = totals(run.measured, "shard")
        found = client.call(OfferingClient.offer, offer, run.pids)
        busy = _busy(run, before, found.seconds, phase.injected_ms)
        rows.append(row_of(factor, found, at_capacity, plan.deadline_s, recall(found.found, run.dataset.truth), busy))
    for row in rows:
        run.tell(
            f"  {'capacity' if row.factor is None else f'{row.factor:g} x':<8} {row.goodput_per_s:7,.0f}/s "
            f"({row.of_capacity:.2f})  p99 {row.p99_ms:6.1f} ms  failures {sum(row.failures_per_s.values()):6,.0f}/s"
        )
    return rows


def _busy(run: _Run, before: Totals, seconds: float, injected_ms: int) -> float:
    after = totals(run.measured, "shard")

    def rise(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    searched = rise(f"{names.SEARCH_STAGE_SECONDS.name}_sum")
    held = rise(f"{names.BATCH_QUERIES.name}_count") * injected_ms / 1000
    return (searched + held) / (seconds * run.plan.shards)


def row_of(
    factor: float | None, found: Outcomes, capacity: Row | None, deadline_s: float, reached: float, busy: float
) -> Row:
    """`capacity`: None for itself."""
    goodput = found.within(deadline_s) / found.seconds
    answers, refused = len(found.latencies_ms), sum(found.failures.values())
    cpu_ms = {name: 1000 * spent / max(1, answers) for name, spent in found.cpu_s.items()}
    refusal_cpu_ms = None
    # Of few refusals a remainder says nothing.
    if capacity is not None and refused > found.calls / 10:
        refusal_cpu_ms = {
            name: (1000 * spent - capacity.cpu_ms[name] * answers) / refused for name, spent in found.cpu_s.items()
        }
    return Row(
        factor=factor,
        offered_per_s=found.calls / found.seconds,
        goodput_per_s=goodput,
        of_capacity=1.0 if capacity is None else goodput / capacity.goodput_per_s,
        failures_per_s={code: count / found.seconds for code, count in sorted(found.failures.items())},
        p50_ms=percentile(found.latencies_ms, 50),
        p99_ms=percentile(found.latencies_ms, 99),
        lag_p99_ms=percentile(found.lag_ms, 99),
        recall=reached,
        cpu_ms=cpu_ms,
        refusal_cpu_ms=refusal_cpu_ms,
        shard_busy=busy,
        cores_elsewhere=found.cores_elsewhere,
    )


def markdown(report: OverloadReport) -> str:
    plan = report.plan
    head = (
        f"{report.origin.heading}\n\n"
        f"{plan.source.name}, {plan.shards} shards, plain unary gRPC, one query per call, deadline {plan.deadline_ms:g} ms. "
        f"Medians of {plan.rounds}\nrounds of {plan.seconds:g} s (lowest..highest). Latencies are of answers, from when the "
        "call was due."
    )
    parts = [head]
    for phase in report.phases:
        running = "" if phase.running is None else f", at most {phase.running} queries running"
        parts.append(f"## {phase.injected_ms} ms injected per batch{running}")
        parts.append(_loads(phase))
        parts.append("CPU ms by process:")
        parts.append(_cpu(phase))
    return "\n\n".join(parts)


def _loads(phase: Phase) -> str:
    head = ["offered", "calls/s", "goodput/s", "of capacity", "refused/s", "p50 ms", "p99 ms", "client late p99 ms",
            "shards busy", "recall", "cores elsewhere"]  # fmt: skip
    rows = []
    for windows in zip(*phase.rounds, strict=True):
        codes = sum((Counter(row.failures_per_s) for row in windows), Counter[str]())
        failures = ", ".join(f"{code} {per_s / len(windows):,.0f}" for code, per_s in codes.most_common()) or "0"
        rows.append(
            [
                "closed loop" if windows[0].factor is None else f"{windows[0].factor:g} x",
                f"{_middle(windows, lambda row: row.offered_per_s).median:,.0f}",
                f"{_middle(windows, lambda row: row.goodput_per_s).median:,.0f}",
                _ranged(_middle(windows, lambda row: row.of_capacity), 2),
                failures,
                _ranged(_middle(windows, lambda row: row.p50_ms), 1),
                _ranged(_middle(windows, lambda row: row.p99_ms), 1),
                f"{_middle(windows, lambda row: row.lag_p99_ms).median:.1f}",
                f"{_middle(windows, lambda row: row.shard_busy).median:.0%}",
                f"{_middle(windows, lambda row: row.recall).median:.4f}",
                f"{_middle(windows, lambda row: row.cores_elsewhere).high:.2f}",
            ]
        )
    return columns(head, rows)


def _cpu(phase: Phase) -> str:
    processes = list(phase.rounds[0][0].cpu_ms)
    rows = []
    for windows in zip(*phase.rounds, strict=True):
        name = "closed loop" if windows[0].factor is None else f"{windows[0].factor:g} x"
        answer = {one: spread([row.cpu_ms[one] for row in windows]).median for one in processes}
        rows.append([f"{name}, per answer", *(f"{answer[one]:.3f}" for one in processes)])
        refusals = [row.refusal_cpu_ms for row in windows if row.refusal_cpu_ms is not None]
        if refusals:
            of_one = {one: spread([each[one] for each in refusals]).median for one in processes}
            rows.append([f"{name}, per refusal", *(f"{of_one[one]:.3f}" for one in processes)])
    return columns(["window", *processes], rows)


def _middle(windows: Sequence[Row], value: Callable[[Row], float]) -> Spread:
    return spread([value(row) for row in windows])


def _ranged(of: Spread, places: int) -> str:
    return f"{of.median:.{places}f} ({of.low:.{places}f}..{of.high:.{places}f})"


def main(argv: Sequence[str], tell: Tell) -> int:
    parser = command.parser("overload", __doc__)
    add = parser.add_argument
    add("--shards", type=int, default=2, help="default: 2")
    add("--injected-ms", type=int, default=5, help="service time per batch of a shard; default: 5")
    add("--running", type=int, default=4, help="queries that run at once while time is injected; default: 4")
    add("--deadline-ms", type=float, default=500.0, help="of each call, from when it was due; default: 500")
    add("--callers", type=int, default=128, help="of the closed loop that finds the capacity; default: 128")
    add("--rounds", type=int, default=5, help="default: 5")
    add("--seconds", type=float, default=6.0, help="of each window; default: 6")
    add("--seed", type=int, default=1, help="of the set, and of the arrivals; default: 1")
    given = parser.parse_args(list(argv))
    plan = Plan(
        source=SMOKE_DATASET if given.smoke else DEFAULT_DATASET,
        shards=given.shards,
        injected_ms=given.injected_ms,
        running=given.running,
        deadline_ms=given.deadline_ms,
        callers=given.callers,
        rounds=1 if given.smoke else given.rounds,
        seconds=0.5 if given.smoke else given.seconds,
        warmup_s=0.2 if given.smoke else 1.0,
        seed=given.seed,
    )
    report = run(plan, ["overload", *argv], tell)
    command.publish(given.output, "overload", report, markdown(report))
    return 0
