"""The figures of the encodings bench: their file, and their tables for people."""

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import results
from bench.statistics import Spread

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One encoding over one set; bytes are per vector. `code_bytes`: in memory, without the graph. `memory_bytes`: all
    that the kernel says the index takes and cannot drop. `formula_bytes`: what the tuner takes that to be.
    `mapped_bytes`: codes in files. `recall` is at `oversampling`, the encoding's own; `recalls` by oversampling.
    `throughput` is per that of f32."""

    encoding: str
    code_bytes: float
    memory_bytes: float
    formula_bytes: float
    mapped_bytes: float
    oversampling: float
    recall: float
    recalls: dict[str, float]
    throughput: Spread
    build_s: float


@dataclass(frozen=True, slots=True)
class SetResult:
    name: str
    metric: str
    vectors: int
    dimension: int
    queries: int
    k: int
    notes: str
    rows: list[Row]


@dataclass(slots=True)
class EncodingReport:
    command: list[str]
    sets: list[SetResult] = field(default_factory=list)
    commit: str = field(default_factory=results.commit)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    machine: dict[str, Any] = field(default_factory=results.machine)
    versions: dict[str, str] = field(default_factory=results.versions)
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> Path:
        """The JSON file, and a .md beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.date.replace(':', '').removesuffix('+0000')}-encodings.json"
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        path.with_suffix(".md").write_text(markdown(self) + "\n")
        return path


def markdown(report: EncodingReport) -> str:
    machine = report.machine
    head = (
        f"commit {report.commit}, {report.date}; {machine['cores']} cores {machine['processor']}, "
        f"load before {machine['load_average'][0]:.2f}\n\n"
        "Bytes are per vector. code: in memory, without the graph; memory: anonymous memory of the whole index, graph "
        "included;\nof f32: that per f32's; mapped: codes in files that the kernel may drop. recall: after exact "
        "rescoring, at the encoding's\nown oversampling (x), and at others. throughput: queries per second per those of "
        "f32, median of rounds in turns."
    )
    return "\n\n".join([head, *(_section(one) for one in report.sets)])


def _section(one: SetResult) -> str:
    notes = f"; {one.notes}" if one.notes else ""
    title = f"## {one.name}: {one.vectors:,} x {one.dimension}, {one.metric}, {one.queries:,} queries{notes}"
    others = list(one.rows[0].recalls) if one.rows else []
    shared = [tried for tried in others if all(tried in row.recalls for row in one.rows)]
    columns = ["encoding", "code", "memory", "of f32", "mapped", f"recall@{one.k}", "x",
               *(f"at {tried}" for tried in shared), "throughput", "build s"]  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    whole = one.rows[0].memory_bytes if one.rows else 1.0
    lines += [f"| {' | '.join(_cells(row, whole, shared))} |" for row in one.rows]
    return "\n".join([title, "", *lines])


def _cells(row: Row, whole: float, shared: list[str]) -> list[str]:
    return [
        row.encoding,
        f"{row.code_bytes:.0f}",
        f"{row.memory_bytes:.0f}",
        f"{row.memory_bytes / whole:.1%}",
        f"{row.mapped_bytes:.0f}",
        f"{row.recall:.4f}",
        f"{row.oversampling:g}",
        *(f"{row.recalls[tried]:.4f}" for tried in shared),
        f"{row.throughput.median:.2f} ({row.throughput.low:.2f}..{row.throughput.high:.2f})",
        f"{row.build_s:.1f}",
    ]
