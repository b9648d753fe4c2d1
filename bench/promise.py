"""THE STORY OF `python -m bench promise`: whether the tuner's recommendation measures as promised, on real embeddings.

1. The documents but for some go into a cluster of processes; those are queries that no collection has seen.
2. `kintsugi tune` is run on it as a user would, for each recall that is wanted and each kind of queries: documents taken
   out of the sample, and, where the file has some, queries of its own. What it recommends is rolled out.
3. The cluster is searched, with queries of that kind, and compared with its own exact search. Promised and measured recall
   stand side by side.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import cluster, command
from bench.datasets import Dataset
from bench.origin import Origin, columns
from bench.statistics import IdMatrix, recall
from kintsugi import Client
from kintsugi.metrics import Metric
from kintsugi.tuning.truth import F32Matrix

Tell = Callable[[str], None]

_COLLECTION = "bench"
_BATCH = 100
_K = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    npz: Path
    documents: str
    queries: str | None
    recalls: tuple[float, ...]
    memory: str | None
    held_out: int
    shards: int
    plots: Path | None


@dataclass(frozen=True, slots=True)
class Promise:
    """`asked`: the kind of queries. `setting` is empty when nothing was recommended."""

    asked: str
    wanted: float
    setting: str
    memory_bytes: float
    promised: float
    measured: float


@dataclass(slots=True)
class PromiseReport:
    origin: Origin
    plan: dict[str, str]
    documents: int
    promises: list[Promise] = field(default_factory=list)


def run(plan: Plan, command: list[str], tell: Tell) -> PromiseReport:
    with np.load(plan.npz) as arrays:
        documents = _usable(arrays[plan.documents])
        of_file = None if plan.queries is None else _usable(arrays[plan.queries])
    order = np.random.default_rng(1).permutation(len(documents))
    documents, unseen = documents[order[plan.held_out :]], documents[order[: plan.held_out]]
    report = PromiseReport(Origin.of(command), {"npz": plan.npz.name, "documents": plan.documents}, len(documents))
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name:
        folder = Path(name)
        kinds: dict[str, tuple[F32Matrix, list[str]]] = {"documents": (unseen, [])}
        if of_file is not None:
            # Half to tune with, half to measure with.
            np.save(folder / "queries.npy", of_file[::2])
            kinds["queries"] = (of_file[1::2], ["--queries-file", str(folder / "queries.npy")])
        with cluster.started(folder / "cluster", plan.shards, 1, 1, pinned=False) as measured:
            _fill(measured, folder, documents)
            for asked, (queries, flags) in kinds.items():
                for wanted in plan.recalls:
                    promise = _kept(measured.address, plan, asked, queries, flags, wanted)
                    report.promises.append(promise)
                    tell(f"  {asked}, {wanted:g}: {promise.setting}, promised {promise.promised:.4f}, "
                         f"measured {promise.measured:.4f}")  # fmt: skip
    return report


def _usable(vectors: F32Matrix) -> F32Matrix:
    """Those with a direction."""
    return np.asarray(vectors[vectors.any(axis=1)], dtype=np.float32)


def _fill(measured: cluster.MeasuredCluster, folder: Path, documents: F32Matrix) -> None:
    np.save(folder / "documents.npy", documents)
    empty: IdMatrix = np.empty((0, 0), dtype=np.int64)
    paths = folder / "documents.npy", folder / "documents.npy"
    measured.create(_COLLECTION, Dataset("promise", Metric.COSINE, *paths, empty))
    with Client(measured.address) as client:
        numbers = np.arange(len(documents), dtype=np.uint64)
        client.bulk_upsert(_COLLECTION, numbers, documents, acknowledgement="searchable", progress=False)
    measured.settle()


def _kept(address: str, plan: Plan, asked: str, queries: F32Matrix, flags: list[str], wanted: float) -> Promise:
    """Tunes, applies, measures."""
    command = [sys.executable, "-m", "kintsugi.cli", "tune", _COLLECTION, "--recall", str(wanted), "--apply", "--json",
               *flags]  # fmt: skip
    if plan.memory is not None:
        command += ["--memory", plan.memory]
    if plan.plots is not None:
        plan.plots.mkdir(parents=True, exist_ok=True)
        command += ["--plot", str(plan.plots / f"tune-{plan.documents}-{asked}-{wanted:g}.svg")]
    environment = {**os.environ, "KINTSUGI_ADDRESS": address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise ValueError(f"kintsugi tune failed: {done.stderr}")
    recommended = json.loads(done.stdout)["recommended"]
    if recommended is None:
        return Promise(asked, wanted, "", float("nan"), float("nan"), float("nan"))
    with Client(address) as client:
        found, truth = (_ids(client, queries, exact=exact) for exact in (False, True))
    return Promise(
        asked=asked,
        wanted=wanted,
        setting=f"{recommended['encoding']} x {recommended['oversampling']:g}",
        memory_bytes=recommended["memory_bytes"],
        promised=recommended["recall"],
        measured=recall(found, truth),
    )


def _ids(client: Client, queries: F32Matrix, *, exact: bool) -> IdMatrix:
    found = [
        client.search_batch(_COLLECTION, queries[start : start + _BATCH], _K, exact=exact, timeout_s=60).ids
        for start in range(0, len(queries), _BATCH)
    ]
    return np.concatenate(found).astype(np.int64)


def markdown(report: PromiseReport) -> str:
    head = (
        f"{report.origin.heading}\n\n{report.plan['npz']}, {report.plan['documents']}: {report.documents:,} documents, "
        f"k {_K}"
    )
    rows = [
        [one.asked, f"{one.wanted:g}", one.setting or "nothing fits", f"{one.memory_bytes:.0f}", f"{one.promised:.4f}",
         f"{one.measured:.4f}", f"{one.measured - one.promised:+.4f}"]
        for one in report.promises
    ]  # fmt: skip
    return f"{head}\n\n{columns(['queries', 'wanted', 'recommended', 'B/vector', 'promised', 'measured', 'off'], rows)}"


def main(argv: Sequence[str], tell: Tell) -> int:
    parser = command.parser("promise", __doc__, smoke=False)
    add = parser.add_argument
    add("--npz", type=Path, required=True, metavar="FILE", help="a file of embeddings")
    add("--documents", required=True, metavar="ARRAY", help="n x d vectors in it")
    add("--queries", metavar="ARRAY", help="queries in it; default: none, only documents are asked for")
    add("--recall", type=float, action="append", default=[], help="wanted; repeatable; default: 0.98")
    add("--memory", metavar="SIZE", help="given to the tuner; default: any")
    add("--held-out", type=int, default=1000, help="documents that are queries instead; default: 1000")
    add("--shards", type=int, default=2, help="default: 2")
    add("--plots", type=Path, metavar="DIR", help="where the tuner's plots go; default: none are drawn")
    given = vars(parser.parse_args(list(argv)))
    output: Path = given.pop("output")
    plan = Plan(recalls=tuple(given.pop("recall")) or (0.98,), **given)
    report = run(plan, ["promise", *argv], tell)
    command.publish(output, "promise", report, markdown(report))
    return 0
