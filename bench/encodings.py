"""THE STORY OF `python -m bench encodings`: what each encoding costs and finds, in this process's children.

1. Each set is prepared with its exact answers (embeddings).
2. f32 is built in a child process and kept; each other encoding in turn in one of its own, which ends before the next.
3. Memory is what a child has more after the build than before; recall is that of the hits after exact rescoring, at
   several oversamplings; throughput is measured in rounds, right before and after f32's, and told as their ratio.
4. Codes of signs are also ranked alone, without a graph (graph_free).

The code is that of the shard servers, without RPC and storage: kintsugi/ann behind kintsugi/tuning/trial.py.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import command, embeddings, graph_free
from bench.child import Child
from bench.embeddings import Embeddings, Pair
from bench.encoding_results import EncodingReport, Row, SetResult, markdown
from bench.encoding_trial import Built, EncodingTrial
from bench.origin import Origin
from bench.statistics import Spread, ratio
from bench.workloads import DEFAULT_DATASET, SMOKE_DATASET, DatasetSpec
from kintsugi.ann.spec import EncodingSpec, parse_name
from kintsugi.tuning.grid import REFERENCE, encodings

Tell = Callable[[str], None]

OVERSAMPLINGS = (3.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    pairs: list[Pair]
    generated: list[DatasetSpec]
    encodings: tuple[str, ...]
    k: int
    queries: int
    rounds: int
    seconds: float
    seed: int


def run(plan: Plan, command: list[str], tell: Tell) -> EncodingReport:
    report = EncodingReport(Origin.of(command))
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name:
        prepared = embeddings.all_of(plan.pairs, plan.generated, Path(name), plan.k, plan.queries, plan.seed)
        for one in prepared:
            tell(f"{one.name}: {one.vectors:,} x {one.dimension}, {one.metric.value}")
            report.sets.append(_measure(plan, one, tell))
    return report


def _measure(plan: Plan, one: Embeddings, tell: Tell) -> SetResult:
    specs = [parse_name(name) for name in plan.encodings] or encodings(one.dimension, one.metric)
    rows = []
    with _child(one, REFERENCE, plan.seed) as reference:
        built: Built = reference.call(EncodingTrial.build)
        rows.append(_row(plan, reference, built, None))
        tell(f"  {_told(rows[-1])}")
        for spec in (spec for spec in specs if spec != REFERENCE):
            with _child(one, spec, plan.seed) as child:
                other: Built = child.call(EncodingTrial.build)
                rows.append(_row(plan, child, other, (reference, built), spec))
                child.call(EncodingTrial.leave)
            tell(f"  {_told(rows[-1])}")
        reference.call(EncodingTrial.leave)
    alone = {spec.name: graph_free.recalls(one.ground(), spec, plan.seed) for spec in graph_free.SPECS}
    for name, recalls in alone.items():
        tell(f"  {name:<18} without a graph: {', '.join(f'{value:.3f} at {at}' for at, value in recalls.items())}")
    shape = one.vectors, one.dimension, one.queries
    return SetResult(one.name, one.metric.value, *shape, plan.k, one.notes, rows, alone)


def _child(one: Embeddings, spec: EncodingSpec, seed: int) -> Child[EncodingTrial]:
    return Child(EncodingTrial, one, spec, seed)


def _row(
    plan: Plan,
    child: Child[EncodingTrial],
    built: Built,
    reference: tuple[Child[EncodingTrial], Built] | None,
    spec: EncodingSpec = REFERENCE,
) -> Row:
    recalls = {f"{tried:g}": float(np.mean(child.call(EncodingTrial.recalls, tried, False))) for tried in OVERSAMPLINGS}
    throughput = Spread(1.0, 1.0, 1.0)
    if reference is not None:
        throughput = _throughput(plan, child, built.oversampling, *reference)
    return Row(
        encoding=spec.name,
        code_bytes=built.sizes.code,
        memory_bytes=built.memory_bytes,
        formula_bytes=built.sizes.memory,
        mapped_bytes=built.sizes.mapped,
        oversampling=built.oversampling,
        recall=float(np.mean(child.call(EncodingTrial.recalls, built.oversampling, True))),
        recalls=recalls,
        throughput=throughput,
        build_s=built.build_s,
    )


def _throughput(
    plan: Plan, child: Child[EncodingTrial], oversampling: float, reference: Child[EncodingTrial], of_reference: Built
) -> Spread:
    """Each at its own oversampling, in turns."""
    ours, theirs = [], []
    for _ in range(plan.rounds):
        theirs.append(reference.call(EncodingTrial.queries_per_s, plan.seconds, of_reference.oversampling))
        ours.append(child.call(EncodingTrial.queries_per_s, plan.seconds, oversampling))
    return ratio(ours, theirs)


def _told(row: Row) -> str:
    return (
        f"{row.encoding:<18} {row.memory_bytes:7.0f} B  recall {row.recall:.4f} at {row.oversampling:g}  "
        f"throughput {row.throughput.median:.2f}  build {row.build_s:.1f} s"
    )


def main(argv: Sequence[str], tell: Tell) -> int:
    arguments = _parser().parse_args(list(argv))
    plan = plan_of(arguments)
    report = run(plan, ["encodings", *argv], tell)
    command.publish(arguments.output, "encodings", report, markdown(report))
    return 0


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Raises ValueError for what cannot be."""
    files, documents, queries = arguments.npz, arguments.documents, arguments.queries
    given = bool(files or documents or queries)
    if given and (len(documents) != len(queries) or len(files) not in {1, len(documents)}):
        raise ValueError(
            f"there are {len(files)} --npz, {len(documents)} --documents and {len(queries)} --queries, must be as many "
            "of each, or one --npz for all"
        )
    files = files * len(documents) if len(files) == 1 else files
    smoke: bool = arguments.smoke
    spec = SMOKE_DATASET if smoke else DEFAULT_DATASET
    for name in arguments.encoding:
        parse_name(name)
    return Plan(
        pairs=[Pair(*one) for one in zip(files, documents, queries, strict=True)],
        generated=[spec] if smoke or not arguments.no_generated else [],
        encodings=tuple(arguments.encoding),
        k=10,
        queries=1000,
        rounds=1 if smoke else arguments.rounds,
        seconds=0.1 if smoke else arguments.seconds,
        seed=arguments.seed,
    )


def _parser() -> argparse.ArgumentParser:
    example = "--npz embeddings.npz --documents doc_a --queries query_a --documents doc_b --queries query_b"
    parser = command.parser("encodings", __doc__, example)
    add = parser.add_argument
    add("--npz", type=Path, action="append", default=[], metavar="FILE", help="a file of embeddings; once for all pairs"
        " of arrays, or once for each")  # fmt: skip
    add("--documents", action="append", default=[], metavar="ARRAY", help="n x d vectors in it; repeatable")
    add("--queries", action="append", default=[], metavar="ARRAY", help="their queries; as often as --documents")
    add("--no-generated", action="store_true", help=f"leave {DEFAULT_DATASET.name} out, and its stretched twin for dot")
    add("--encoding", action="append", default=[], metavar="NAME", help="only these, and f32; default: about a dozen")
    add("--rounds", type=int, default=5, help="of throughput; default: 5")
    add("--seconds", type=float, default=0.5, help="of each round and side; default: 0.5")
    add("--seed", type=int, default=1, help="of generated sets and fits; default: 1")
    return parser
