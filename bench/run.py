"""THE STORY OF A RUN: prepare, ingest, settle, search in rounds, recover, report.

1. Prepare: vectors and queries in files, the exact answers (datasets).
2. Ingest: the cluster until searches find everything, then the raw engine; as many times as asked (callers, raw).
3. Settle: nothing is measured while an index is built or a checkpoint written (cluster).
4. Search: in each round every workload once, and right after it the raw engine with the same calls. So a disturbance
   of some seconds hits both sides of a ratio, and one of a minute hits all workloads.
5. Recover: when asked, kill shard servers and wait for them (recovery).
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import cluster as measured
from bench import datasets, recovery
from bench.callers import LoadClient
from bench.child import Child
from bench.cluster import MeasuredCluster
from bench.datasets import Dataset
from bench.hops import Hops, Way
from bench.processes import CpuMeter
from bench.raw import RawEngine
from bench.results import (
    Figures,
    HopsResult,
    IngestResult,
    Report,
    SearchResult,
    Side,
    added_ms,
    figures,
    throughput_ratio,
)
from bench.settings import Settings
from bench.statistics import ratio, spread
from bench.workloads import LIMIT_BATCH, SearchWorkload, raw_name

Tell = Callable[[str], None]
Rounds = dict[str, list[Figures]]

_COLLECTION = "bench"
# Between two tries on a disturbed machine.
_CALM_S = 5.0


def run(settings: Settings, command: list[str], tell: Tell) -> Report:
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-", dir=settings.work) as name:
        folder = Path(name)
        tell(f"preparing {settings.source.name}")
        dataset = datasets.prepare(
            settings.source,
            folder,
            metric=settings.metric,
            k=settings.k,
            seed=settings.seed,
            queries=settings.queries,
        )
        report = Report(command, _plain(settings), _described(dataset))
        shape = (settings.shards, settings.replicas, settings.coordinators)
        with (
            measured.started(folder / "cluster", *shape, pinned=settings.pinned) as cluster,
            _load_client(settings, dataset, cluster) as client,
            closing(RawEngine(dataset, settings.shards, settings.k, pinned=settings.pinned)) as raw,
        ):
            _measure(_Run(settings, dataset, cluster, client, raw, tell), report)
        return report


@dataclass(frozen=True, slots=True)
class _Run:
    """What all parts of a run need."""

    settings: Settings
    dataset: Dataset
    cluster: MeasuredCluster
    client: Child[LoadClient]
    raw: RawEngine
    tell: Tell


@contextmanager
def _load_client(settings: Settings, dataset: Dataset, cluster: MeasuredCluster) -> Iterator[Child[LoadClient]]:
    arguments = (cluster.address, _COLLECTION, str(dataset.queries_path), settings.k, settings.client_loop)
    with Child(LoadClient, *arguments) as client:
        yield client


def _measure(run: _Run, report: Report) -> None:
    report.ingest = _ingest(run)
    if run.settings.searches:
        report.searches, report.hops = _search(run)
    report.memory = {**run.cluster.memory(), **run.raw.memory()}
    if run.settings.recovery:
        run.tell("recovery")
        report.recovery = recovery.measure(run.cluster, _COLLECTION, run.dataset, run.settings.rounds)


def _ingest(run: _Run) -> IngestResult:
    count = len(run.dataset.vectors)
    ours: list[float] = []
    theirs: list[float] = []
    disturbed: list[float] = []
    cpu_us: dict[str, list[float]] = defaultdict(list)
    for number in range(run.settings.ingest_rounds):
        run.tell(f"ingest, round {number + 1} of {run.settings.ingest_rounds}")
        if number:
            run.cluster.delete(_COLLECTION)
        run.cluster.create(_COLLECTION, run.dataset)
        run.cluster.pin()
        meter = CpuMeter({"client": run.client.pid, **run.cluster.pids})
        seconds = run.client.call(LoadClient.ingest, str(run.dataset.vectors_path), _COLLECTION)
        ours.append(count / seconds)
        disturbed.append(meter.seconds_elsewhere() / seconds)
        for name, spent in meter.seconds().items():
            cpu_us[name].append(1e6 * spent / count)
        settled_s = run.cluster.settle()
        theirs.append(count / run.raw.build())
        run.tell(f"  cluster {ours[-1]:,.0f}/s, raw {theirs[-1]:,.0f}/s, settled after {settled_s:.0f} s")
    return IngestResult(
        vectors=count,
        cluster_per_s=spread(ours),
        raw_per_s=spread(theirs),
        of_raw=ratio(ours, theirs),
        settled_after_s=settled_s,
        cores_elsewhere=max(disturbed),
        cpu_us={name: spread(rounds).median for name, rounds in cpu_us.items()},
    )


def _search(run: _Run) -> tuple[list[SearchResult], dict[str, HopsResult]]:
    ways: dict[str, list[Way]] = defaultdict(list)
    ours: Rounds = defaultdict(list)
    theirs: Rounds = defaultdict(list)
    for number in range(run.settings.rounds):
        run.tell(f"searches, round {number + 1} of {run.settings.rounds}")
        for workload in run.settings.searches:
            mine, other = _pair(run, workload)
            ours[workload.name].append(mine)
            theirs[workload.name].append(other)
            run.tell(
                f"  {workload.name:<12} {mine.queries_per_s:8,.0f}/s  p50 {mine.latency_ms['p50']:7.2f} ms   "
                f"{workload.raw} {other.queries_per_s:8,.0f}/s   others {max(mine.cores_elsewhere, other.cores_elsewhere):.2f}"
            )
        if all(workload.batch != LIMIT_BATCH for workload in run.settings.searches):
            theirs[raw_name(LIMIT_BATCH)].append(_raw_figures(run, LIMIT_BATCH))
        if any(workload.callers == 1 for workload in run.settings.searches):
            for name, way in _ways(run).items():
                ways[name].append(way)
                run.tell(f"  the way alone, {name:<6} p50 {way.p50_ms:7.2f} ms")
    searches = [_compared(workload, ours, theirs, run.settings) for workload in run.settings.searches]
    return searches, {name: HopsResult.of(rounds) for name, rounds in ways.items()}


def _ways(run: _Run) -> dict[str, Way]:
    settings, size = run.settings, run.dataset.queries[0].nbytes
    with closing(Hops(settings.shards, size, pinned=settings.pinned)) as hops:
        return {
            name: hops.measure(settings.warmup_s, settings.raw_seconds, on_stream=on_stream)
            for name, on_stream in (("calls", False), ("stream", True))
        }


def _pair(run: _Run, workload: SearchWorkload) -> tuple[Figures, Figures]:
    """Both sides, again while others disturb one of them and patience lasts. What is kept depends on the machine only,
    never on the figures."""
    for tried in range(run.settings.patience):
        if tried:
            time.sleep(_CALM_S)
        pair = _cluster_figures(run, workload), _raw_figures(run, workload.batch)
        if not any(one.is_disturbed for one in pair):
            break
    return pair


def _cluster_figures(run: _Run, workload: SearchWorkload) -> Figures:
    pids = {"client": run.client.pid, **run.cluster.pids}
    load = run.client.call(LoadClient.run, workload, pids, run.settings.warmup_s, run.settings.seconds)
    return figures(load, run.dataset.truth)


def _raw_figures(run: _Run, batch: int) -> Figures:
    return figures(run.raw.run(batch, run.settings.warmup_s, run.settings.raw_seconds), run.dataset.truth)


def _compared(workload: SearchWorkload, ours: Rounds, theirs: Rounds, settings: Settings) -> SearchResult:
    mine, raw = ours[workload.name], theirs[workload.name]
    limits = [one.name for one in settings.searches if one.batch == LIMIT_BATCH] or [raw_name(LIMIT_BATCH)]
    return SearchResult(
        name=workload.name,
        caller=workload.caller.value,
        callers=workload.callers,
        batch=workload.batch,
        cluster=Side.of(mine),
        raw=Side.of(raw),
        of_raw=throughput_ratio(mine, raw),
        of_limit=throughput_ratio(mine, theirs[limits[0]]),
        added_ms=added_ms(mine, raw),
    )


def _plain(settings: Settings) -> dict[str, Any]:
    told = asdict(settings)
    told["searches"] = [workload.name for workload in settings.searches]
    for name in ("source", "output", "work"):
        del told[name]  # the dataset is described by itself; folders are of this machine
    return told


def _described(dataset: Dataset) -> dict[str, Any]:
    count, dimension = dataset.vectors.shape
    return {
        "name": dataset.name,
        "vectors": count,
        "dimension": dimension,
        "queries": len(dataset.queries),
        "metric": dataset.metric.value,
    }
