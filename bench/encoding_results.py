"""The figures of the encodings bench: their file, and their tables for people."""

from dataclasses import dataclass, field

from bench.origin import Origin, columns
from bench.statistics import Spread


@dataclass(frozen=True, slots=True)
class Row:
    """One encoding over one set; bytes are per vector. `code_bytes`: in memory, without the graph. `memory_bytes`: all
    that the kernel says the index takes and cannot drop. `formula_bytes`: what the tuner takes that to be.
    `mapped_bytes`: codes in files. `recall` is that of a search that names no oversampling, by an index whose own
    is `oversampling`; `recalls` are by the oversampling that a search names.
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
    """`graph_free`: recalls by encoding and oversampling, of codes alone."""

    name: str
    metric: str
    vectors: int
    dimension: int
    queries: int
    k: int
    notes: str
    rows: list[Row]
    graph_free: dict[str, dict[str, float]]


@dataclass(slots=True)
class EncodingReport:
    origin: Origin
    sets: list[SetResult] = field(default_factory=list)


def markdown(report: EncodingReport) -> str:
    head = (
        f"{report.origin.heading}\n\n"
        "Bytes are per vector. code: in memory, without the graph; memory: anonymous memory of the whole index, graph "
        "included;\nof f32: that per f32's; mapped: codes in files that the kernel may drop. recall: after exact "
        "rescoring, of a search that names\nno oversampling, where the encoding's own is x; at n: of one that names n. "
        "throughput: of the former, per that of f32, median of\nrounds in turns."
    )
    return "\n\n".join([head, *(_section(one) for one in report.sets)])


def _section(one: SetResult) -> str:
    notes = f"; {one.notes}" if one.notes else ""
    title = f"## {one.name}: {one.vectors:,} x {one.dimension}, {one.metric}, {one.queries:,} queries{notes}"
    others = list(one.rows[0].recalls) if one.rows else []
    shared = [tried for tried in others if all(tried in row.recalls for row in one.rows)]
    head = ["encoding", "code", "memory", "of f32", "mapped", f"recall@{one.k}", "x",
            *(f"at {tried}" for tried in shared), "throughput", "build s"]  # fmt: skip
    whole = one.rows[0].memory_bytes if one.rows else 1.0
    table = columns(head, [_cells(row, whole, shared) for row in one.rows])
    return f"{title}\n\n{table}\n\n{_graph_free(one)}"


def _graph_free(one: SetResult) -> str:
    """Rows are encodings, columns how many candidates per hit are scored exactly."""
    tried = list(next(iter(one.graph_free.values()), {}))
    rows = [[name, *(f"{recalls[at]:.4f}" for at in tried)] for name, recalls in one.graph_free.items()]
    return "Codes alone, no graph, so many candidates per hit scored exactly:\n\n" + columns(["encoding", *tried], rows)


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
