"""Lays the figures of a run out for people, in plain text."""

from collections.abc import Sequence

from bench.results import DISTURBED_CORES, Report, SearchResult, Side
from bench.statistics import Spread

_MB = 2**20


def table(report: Report) -> str:
    """All there is to say, in at most 120 columns."""
    parts = [_heading(report)]
    if report.ingest is not None:
        ingest = report.ingest
        parts.append(
            f"ingest until searchable: {ingest.cluster_per_s.median:,.0f} vectors/s, "
            f"raw add {ingest.raw_per_s.median:,.0f}/s, ratio {_ratio(ingest.of_raw)}; "
            f"others used {ingest.cores_elsewhere:.2f} cores meanwhile\n"
            f"processor time per vector, us: {', '.join(f'{name} {us:.0f}' for name, us in ingest.cpu_us.items())}"
        )
    if report.searches:
        parts += [_searches(report.searches), _disturbance(report.searches), _cpu(report.searches)]
    if report.hops:
        parts.append(_hops(report))
    if report.memory:
        parts.append(_memory(report))
    if report.recovery is not None:
        parts.append(_recovery(report))
    return "\n\n".join(parts)


def _heading(report: Report) -> str:
    machine, data, settings = report.machine, report.dataset, report.settings
    return (
        f"{data['name']}: {data['vectors']:,} x {data['dimension']}, {data['metric']}, k {settings['k']}; "
        f"{settings['shards']} shards x {settings['replicas']}, {settings['coordinators']} coordinator(s)\n"
        f"commit {report.commit}, {report.date}; {machine['cores']} cores {machine['processor']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Python {machine['python']}, "
        f"load before {machine['load_average'][0]:.2f}\n"
        f"medians of {settings['rounds']} rounds (lowest..highest)"
    )


def _searches(searches: Sequence[SearchResult]) -> str:
    head = ["workload", "queries/s", "p50", "p90", "p99 ms", "recall", "raw q/s", "raw p50", "recall", "of raw",
            "of limit", "errors"]  # fmt: skip
    rows = [
        [
            one.name,
            f"{one.cluster.queries_per_s.median:,.0f}",
            *_latencies(one.cluster),
            f"{one.cluster.recall:.4f}",
            f"{one.raw.queries_per_s.median:,.0f}",
            _latencies(one.raw)[0],
            f"{one.raw.recall:.4f}",
            _ratio(one.of_raw),
            _ratio(one.of_limit) if one.of_limit is not None else "",
            str(one.cluster.errors),
        ]
        for one in searches
    ]
    return "searches; raw: the engine in-process, given the same calls; limit: given the largest calls\n" + _columns(
        head, rows
    )


def _disturbance(searches: Sequence[SearchResult]) -> str:
    sides = [side.cores_elsewhere for one in searches for side in (one.cluster, one.raw)]
    median, most = max(side.median for side in sides), max(side.high for side in sides)
    told = f"other processes used at most {most:.2f} cores in a round, {median:.2f} in the median round of a workload"
    return told if median <= DISTURBED_CORES else f"{told}: BUSY MACHINE, do not use these figures"


def _latencies(side: Side) -> list[str]:
    return [f"{value.median:.2f}" for value in side.latency_ms.values()]


def _cpu(searches: Sequence[SearchResult]) -> str:
    names = list(searches[0].cluster.cpu_ms_per_query)
    rows = []
    for one in searches:
        cpu = one.cluster.cpu_ms_per_query
        raw = sum(one.raw.cpu_ms_per_query.values())
        rows.append([one.name, *(f"{cpu[name]:.3f}" for name in names), f"{sum(cpu.values()):.3f}", f"{raw:.3f}"])
    return "CPU ms per query\n" + _columns(["workload", *names, "all", "raw, all"], rows)


def _hops(report: Report) -> str:
    names = list(next(iter(report.hops.values())).cpu_ms)
    rows = [
        [
            name,
            _ratio(one.p50_ms),
            *(f"{one.cpu_ms[process]:.3f}" for process in names),
            f"{sum(one.cpu_ms.values()):.3f}",
        ]
        for name, one in report.hops.items()
    ]
    return (
        "the way alone: empty messages of one caller through as many gRPC hops in the same places; ms, and CPU ms each\n"
        + _columns(["", "p50", *names, "all"], rows)
    )


def _memory(report: Report) -> str:
    rows = [
        [name, f"{memory.resident_bytes / _MB:.0f}", f"{memory.anonymous_bytes / _MB:.0f}"]
        for name, memory in report.memory.items()
    ]
    return "memory in MiB (resident counts mapped database pages)\n" + _columns(
        ["process", "resident", "anonymous"], rows
    )


def _recovery(report: Report) -> str:
    assert report.recovery is not None
    rows = [
        [
            one.server,
            f"{one.journal_records:,}",
            *(f"{seconds:.2f}" for seconds in (one.serving_s, one.caught_up_s)),
            f"{one.recall:.4f}",
        ]
        for one in report.recovery.rounds
    ]
    return f"recovery of a killed shard server: {report.recovery.serving_s.median:.2f} s\n" + _columns(
        ["server", "behind checkpoint", "serving after s", "caught up after s", "recall"], rows
    )


def _ratio(value: Spread) -> str:
    return f"{value.median:.2f} ({value.low:.2f}..{value.high:.2f})"


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    )
