"""What `python -m bench peer` leaves behind, and what it says about the targets. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bench.origin import Origin, columns
from bench.processes import Memory
from bench.results import Figures, Side, throughput_ratio
from bench.statistics import Spread, ratio
from bench.workloads import DatasetSpec, SearchWorkload

# What is good at all.
GOOD_RECALL = 0.99
# Recalls of 1,000 queries that differ by less count as equal: what is left is chance.
_CHANCE = 0.0005
_SINGLES_RATIO, _BATCHES_RATIO, _P99_RATIO, _INGEST_RATIO = 4.0, 1.3, 0.25, 1.5
_MEMORY_SHARE, _PROCESS_BYTES = 0.5, 60e6
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    source: DatasetSpec
    k: int
    rounds: int
    ingest_rounds: int
    seconds: float
    warmup_s: float
    seed: int


class Match(StrEnum):
    """How broad searches are made: on both sides as narrow as they may be with a good recall, or ours as they are without a word,
    and Chroma's as narrow as they may be with our recall."""

    FASTEST = "both at their fastest"
    OUR_RECALL = "Chroma at our recall"

    def least_recall(self, other: float) -> float:
        """That one side must have beside the other's."""
        return min(other, GOOD_RECALL) if self is Match.FASTEST else other - _CHANCE


@dataclass(frozen=True, slots=True)
class PeerSearch:
    """One workload against one shape of our cluster. `our_ef_search` None: what our index has learned. `throughput` and `p99` are
    ours per Chroma's, round by round."""

    name: str
    batch: int
    shape: str
    match: Match
    our_ef_search: int | None
    ef_search: int
    ours: Side
    chroma: Side
    throughput: Spread
    p99: Spread

    @classmethod
    def of(
        cls,
        workload: SearchWorkload,
        shape: str,
        match: Match,
        ef_search: int,
        ours: list[Figures],
        chroma: list[Figures],
    ) -> "PeerSearch":
        p99 = ratio([one.latency_ms["p99"] for one in ours], [one.latency_ms["p99"] for one in chroma])
        sides = Side.of(ours), Side.of(chroma)
        return cls(
            workload.name,
            workload.batch,
            shape,
            match,
            workload.ef_search,
            ef_search,
            *sides,
            throughput_ratio(ours, chroma),
            p99,
        )


@dataclass(frozen=True, slots=True)
class PeerIngest:
    """Vectors per second until all were searchable."""

    vectors: int
    ours_per_s: Spread
    chroma_per_s: Spread
    ratio: Spread


@dataclass(frozen=True, slots=True)
class PeerMemory:
    """After the searches of the shape with one replica. `ours` by process. Chroma has been started anew since its ingest,
    after which it keeps much that it has no use for: `chroma_ingested`."""

    ours: dict[str, Memory]
    chroma: Memory
    chroma_ingested: Memory

    @property
    def ours_bytes(self) -> int:
        return sum(one.anonymous_bytes for one in self.ours.values())

    @property
    def limit_bytes(self) -> float:
        return _MEMORY_SHARE * self.chroma.anonymous_bytes + _PROCESS_BYTES * len(self.ours)


@dataclass(frozen=True, slots=True)
class Target:
    """One line of what is to be reached."""

    name: str
    wanted: str
    measured: str
    is_met: bool


@dataclass(slots=True)
class PeerReport:
    origin: Origin
    plan: Plan
    ingest: PeerIngest | None = None
    searches: list[PeerSearch] = field(default_factory=list)
    memory: PeerMemory | None = None
    targets: list[Target] = field(default_factory=list)


def targets(report: PeerReport) -> list[Target]:
    """In the order of what is told; one of what was not measured is left out."""
    found = [target for one in report.searches for target in _of_search(one)]
    if report.ingest is not None:
        found.append(_at_least("ingest until searchable", _INGEST_RATIO, report.ingest.ratio))
    if report.memory is not None:
        ours, limit = report.memory.ours_bytes, report.memory.limit_bytes
        wanted = f"<= {limit / _MB:,.0f} MB: half of Chroma's + 60 MB x {len(report.memory.ours)} processes"
        found.append(Target("anonymous memory, one replica", wanted, f"{ours / _MB:,.0f} MB", ours <= limit))
    return found


def _of_search(one: PeerSearch) -> list[Target]:
    ours, least = one.ours.recall, one.match.least_recall(one.chroma.recall)
    name = f"{one.name} on {one.shape}, {one.match}"
    recall = Target(f"{name}: recall", f">= {least:.4f}", f"{ours:.4f}", ours >= least)
    if one.batch > 1:
        return [_at_least(f"{name}: throughput", _BATCHES_RATIO, one.throughput), recall]
    return [
        _at_least(f"{name}: throughput", _SINGLES_RATIO, one.throughput),
        Target(f"{name}: p99", f"<= {_P99_RATIO:g} x", _times(one.p99), one.p99.median <= _P99_RATIO),
        recall,
    ]


def _at_least(name: str, least: float, measured: Spread) -> Target:
    return Target(name, f">= {least:g} x", _times(measured), measured.median >= least)


def _times(value: Spread) -> str:
    return f"{value.median:.2f} x ({value.low:.2f}..{value.high:.2f})"


def markdown(report: PeerReport) -> str:
    plan = report.plan
    head = (
        f"{report.origin.heading}\n\n"
        f"{plan.source.name}, cosine, k {plan.k}, Chroma {report.origin.versions['chromadb']}. Ours per Chroma's within a "
        f"round: medians of\n{plan.rounds} rounds, of {plan.ingest_rounds} of ingest (lowest..highest)."
    )
    rows = [[one.name, one.wanted, one.measured, "met" if one.is_met else "NOT MET"] for one in report.targets]
    parts = [head, columns(["target", "wanted", "measured", ""], rows)]
    if report.ingest is not None:
        ours, theirs = report.ingest.ours_per_s.median, report.ingest.chroma_per_s.median
        parts.append(f"Ingest until searchable: {ours:,.0f} vectors/s, Chroma {theirs:,.0f}/s.")
    if report.searches:
        parts += [_searches(report.searches), _cpu(report.searches)]
    if report.memory is not None:
        parts.append(_memory(report.memory))
    return "\n\n".join(parts)


def _searches(searches: Sequence[PeerSearch]) -> str:
    head = ["workload", "cluster", "queries/s", "p50 ms", "p99 ms", "recall", "ef_search", "Chroma q/s", "p50 ms", "p99 ms",
            "recall", "ef_search", "errors", "others' cores"]  # fmt: skip
    rows = []
    for one in searches:
        sides = (one.ours, one.chroma)
        cells = [
            [f"{side.queries_per_s.median:,.0f}", f"{side.latency_ms['p50'].median:.2f}",
             f"{side.latency_ms['p99'].median:.2f}", f"{side.recall:.4f}"]
            for side in sides
        ]  # fmt: skip
        errors = " and ".join(str(side.errors) for side in sides)
        elsewhere = max(side.cores_elsewhere.median for side in sides)
        ours, theirs = str(one.our_ef_search or "learned"), str(one.ef_search)
        rows.append([one.name, one.shape, *cells[0], ours, *cells[1], theirs, errors, f"{elsewhere:.2f}"])
    return columns(head, rows)


def _cpu(searches: Sequence[PeerSearch]) -> str:
    rows = [
        [one.name, side, ", ".join(f"{name} {ms:.3f}" for name, ms in figures.cpu_ms_per_query.items())]
        for one in searches
        for side, figures in (("ours", one.ours), ("Chroma", one.chroma))
    ]
    return columns(["workload", "side", "CPU ms per query"], rows)


def _memory(memory: PeerMemory) -> str:
    told = {**memory.ours, "Chroma": memory.chroma, "Chroma after ingest": memory.chroma_ingested}
    rows = [
        [name, f"{one.anonymous_bytes / _MB:,.0f}", f"{one.resident_bytes / _MB:,.0f}"] for name, one in told.items()
    ]
    all_resident = sum(one.resident_bytes for one in memory.ours.values())
    rows.insert(len(memory.ours), ["all of ours", f"{memory.ours_bytes / _MB:,.0f}", f"{all_resident / _MB:,.0f}"])
    return columns(["process", "anonymous MB", "resident MB"], rows)
