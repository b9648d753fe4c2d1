"""The command line: from flags to settings, and from a report to files and a table."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bench import (
    backfill,
    breakdown,
    encodings,
    filters,
    growth,
    mixed,
    overload,
    peer,
    promise,
    tail,
    upgrade,
)
from bench.chart import svg
from bench.child import ChildFailed
from bench.report import table
from bench.results import RESULTS
from bench.run import run
from bench.settings import Settings
from bench.workloads import (
    DATASETS,
    DEFAULT_DATASET,
    RECOVERY,
    RECOVERY_DATASET,
    SEARCHES,
    SMOKE_DATASET,
    DatasetSpec,
    dataset_named,
    searches_named,
)
from kintsugi.errors import KintsugiError
from kintsugi.metrics import Metric

T = TypeVar("T")

# Commands of their own, each with its --help.
TABLES = {
    "encodings": encodings.main,
    "filters": filters.main,
    "breakdown": breakdown.main,
    "promise": promise.main,
    "upgrade": upgrade.main,
    "backfill": backfill.main,
    "mixed": mixed.main,
    "overload": overload.main,
    "tail": tail.main,
    "peer": peer.main,
    "growth": growth.main,
}

_DESCRIPTION = """\
Measures a cluster of real processes on this machine beside the raw engine (usearch in-process with the same codes,
graph, rescoring, partitions and number of processes), in interleaved rounds of one run. Prints a table and writes a
JSON file and an SVG chart. bench/README.md says what the figures mean and where they mislead."""


def _epilog() -> str:
    workloads = "\n".join(
        f"  {one.name:<12} {one.callers} caller(s) by {one.caller.value}, {one.batch} queries per call"
        for one in SEARCHES
    )
    sets = "\n".join(
        f"  {one.name:<20} {one.vectors:,} x {one.dimension}, {one.intrinsic} intrinsic dimensions" for one in DATASETS
    )
    return (
        f"search workloads (closed loop):\n{workloads}\n\nmore workloads, only by name:\n"
        f"  {RECOVERY:<12} kills shard servers and measures until they serve; alone it takes {RECOVERY_DATASET.name}\n\n"
        f"tables, with flags of their own: {', '.join(TABLES)}; see python -m bench TABLE --help\n\n"
        f"generated datasets:\n{sets}\n\n"
        "examples:\n"
        "  python -m bench                              everything but recovery; about 15 minutes on 2 cores\n"
        "  python -m bench sdk-64 batch-64x4 --rounds 3\n"
        "  python -m bench recovery --rounds 4\n"
        "  python -m bench --vectors embeddings.npz --metric dot\n"
        "  python -m bench --smoke"
    )


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"is {value}, must be at least 1")
    return value


def _duration(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"is {value:g}, must be above 0")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=_DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("workloads", nargs="*", metavar="WORKLOAD", help="which to run; default: all search workloads")
    add("--smoke", action="store_true", help="a tiny set and one short round: tells whether the bench works, no more")
    add("--dataset", metavar="NAME", help=f"a generated set, see below; default: {DEFAULT_DATASET.name}")
    add("--vectors", type=Path, metavar="FILE", help="a .npy (its last rows become queries) or .npz file with vectors"
        " or train, and queries or test, instead of a generated set")  # fmt: skip
    add("--metric", choices=[metric.value for metric in Metric], default="cosine", help="default: cosine")
    add("--k", type=_count, default=10, help="hits per query; default: 10")
    add("--queries", type=_count, default=1000, help="distinct queries used at most; default: 1000")
    add("--seed", type=int, default=1, help="of the generated set; default: 1")
    add("--rounds", type=_count, help="rounds of searches, and kills of recovery; default: 5")
    add("--ingest-rounds", type=_count, default=1, help="times the whole set is ingested by both sides; default: 1")
    add("--seconds", type=_duration, help="window of a cluster run; default: 4")
    add("--raw-seconds", type=_duration, help="window of a raw run; default: 2")
    add("--warmup", type=_duration, help="seconds before each window; default: 1")
    add("--shards", type=_count, default=2, help="shards, and raw processes; default: 2")
    add("--replicas", type=_count, default=1, help="replicas of each shard; default: 1")
    add("--coordinators", type=_count, default=1, help="coordinators; the client uses the first; default: 1")
    add("--no-pin", action="store_true", help="let shard servers and raw engines wander between cores")
    add(
        "--patience",
        type=_count,
        default=1,
        metavar="TRIES",
        help="measure what other processes disturbed again, at most so many times in all; default: 1",
    )
    add("--client-loop", choices=["asyncio", "uvloop"], default="asyncio", help="the client's loop; default: asyncio")
    add("--output", type=Path, default=RESULTS, metavar="DIR", help="where results go; default: bench/results/local")
    add("--work", type=Path, metavar="DIR", help="where data lives during the run; default: the system's temporary one")
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Raises ValueError for what cannot be."""
    smoke: bool = arguments.smoke
    return Settings(
        searches=tuple(searches_named(arguments.workloads)) if arguments.workloads else SEARCHES,
        recovery=RECOVERY in arguments.workloads,
        source=_source(arguments),
        metric=Metric(arguments.metric),
        k=arguments.k,
        queries=arguments.queries,
        seed=arguments.seed,
        rounds=_given(arguments.rounds, 1 if smoke else 5),
        ingest_rounds=arguments.ingest_rounds,
        seconds=_given(arguments.seconds, 0.5 if smoke else 4.0),
        raw_seconds=_given(arguments.raw_seconds, 0.3 if smoke else 2.0),
        warmup_s=_given(arguments.warmup, 0.2 if smoke else 1.0),
        shards=arguments.shards,
        replicas=arguments.replicas,
        coordinators=arguments.coordinators,
        pinned=not arguments.no_pin,
        patience=arguments.patience,
        client_loop=arguments.client_loop,
        output=arguments.output,
        work=arguments.work,
    )


def _source(arguments: argparse.Namespace) -> DatasetSpec | Path:
    if arguments.vectors is not None:
        if arguments.dataset is not None:
            raise ValueError("dataset and vectors are both given, must be one of them")
        path: Path = arguments.vectors
        if not path.is_file():
            raise ValueError(f"vectors is {path}, must be a file")
        return path
    if arguments.dataset is not None:
        return dataset_named(arguments.dataset)
    if arguments.smoke:
        return SMOKE_DATASET
    return RECOVERY_DATASET if arguments.workloads == [RECOVERY] else DEFAULT_DATASET


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def main(argv: Sequence[str] | None = None) -> int:
    told = list(sys.argv[1:] if argv is None else argv)
    begun = time.monotonic()

    def tell(message: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {message}", file=sys.stderr, flush=True)

    table_of = TABLES.get(told[0]) if told else None
    try:
        return _run_workloads(told, tell) if table_of is None else table_of(told[1:], tell)
    except (KintsugiError, ChildFailed, TimeoutError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _run_workloads(told: list[str], tell: Callable[[str], None]) -> int:
    parser = _parser()
    arguments = parser.parse_args(told)
    try:
        settings = settings_of(arguments)
    except ValueError as error:
        parser.error(str(error))
    report = run(settings, ["python", "-m", "bench", *told], tell)
    print(table(report))
    path = report.write(settings.output)
    if report.searches:
        path.with_suffix(".svg").write_text(svg(report))
    print(f"\nwritten to {path}")
    return 0
