"""THE STORY OF `python -m bench peer`: Kintsugi beside Chroma's server, in interleaved rounds of one run.

1. Both take in the generated set, in turns: we with two shards of one replica, Chroma as it comes. A round ends when
   searches find everything.
2. Searches are compared at their fastest: Chroma's as narrow as they can be while their recall is good at all, ours as narrow
   as they can be and no worse. Then with ours as they are without a word, and Chroma's as narrow as they can be with our
   recall. In each round each workload runs against us and right after it against Chroma, from one client process each.
3. The memory of all processes is read.
4. The same searches and batches are compared with one shard of two replicas. Chroma's collection stays the same all along.
"""

import tempfile
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import chroma, cluster, command, datasets
from bench.callers import LoadClient
from bench.child import Child
from bench.chroma import ChromaClient, ChromaServer
from bench.cluster import MeasuredCluster
from bench.datasets import Dataset
from bench.origin import Origin
from bench.peer_results import (
    Match,
    PeerIngest,
    PeerMemory,
    PeerReport,
    PeerSearch,
    Plan,
    markdown,
    targets,
)
from bench.processes import memory, wait_idle
from bench.results import Figures, figures
from bench.statistics import IdMatrix, ratio, recall, spread
from bench.workloads import DEFAULT_DATASET, SMOKE_DATASET, SearchWorkload, searches_named
from kintsugi.metrics import Metric

Tell = Callable[[str], None]

# The candidates of a search, from the fewest candidates that can hold k hits.
BREADTHS = tuple(round(10 * 1.1**step) for step in range(47))

_COLLECTION = "bench"


@dataclass(frozen=True, slots=True)
class Shape:
    """A cluster of ours, and what is compared with it."""

    shards: int
    replicas: int
    searches: tuple[SearchWorkload, ...]

    @property
    def name(self) -> str:
        return f"{self.shards} x {self.replicas}"


SHARDED = Shape(2, 1, tuple(searches_named(["sdk-16", "sdk-64"])))
REPLICATED = Shape(1, 2, tuple(searches_named(["sdk-16", "sdk-64", "batch-64x4"])))


@dataclass(frozen=True, slots=True)
class Peer:
    """Chroma, as it is asked and watched."""

    server: ChromaServer
    client: Child[ChromaClient]


@dataclass(frozen=True, slots=True)
class Ours:
    cluster: MeasuredCluster
    client: Child[LoadClient]


@dataclass(frozen=True, slots=True)
class _Run:
    plan: Plan
    dataset: Dataset
    peer: Peer
    tell: Tell


def run(plan: Plan, command: list[str], tell: Tell) -> PeerReport:
    report = PeerReport(Origin.of(command), plan)
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        tell(f"preparing {plan.source.name}")
        dataset = datasets.prepare(plan.source, folder, metric=Metric.COSINE, k=plan.k, seed=plan.seed, queries=1000)
        server = stack.enter_context(ChromaServer(folder / "chroma"))
        client = stack.enter_context(Child(ChromaClient, server.port, str(dataset.queries_path), plan.k))
        this = _Run(plan, dataset, Peer(server, client), tell)
        with ExitStack() as shape:
            ours = _started(this, SHARDED, folder / "sharded", shape)
            report.ingest = _ingest(this, ours)
            ingested = memory(server.pid)
            report.searches += _search(this, ours, SHARDED)
            report.memory = PeerMemory(ours.cluster.memory(), memory(server.pid), ingested)
        with ExitStack() as shape:
            ours = _started(this, REPLICATED, folder / "replicated", shape)
            _fill(this, ours)
            report.searches += _search(this, ours, REPLICATED)
    report.targets = targets(report)
    return report


def _started(run: _Run, shape: Shape, folder: Path, stack: ExitStack) -> Ours:
    measured = stack.enter_context(cluster.started(folder, shape.shards, shape.replicas, 1, pinned=True))
    arguments = (measured.address, _COLLECTION, str(run.dataset.queries_path), run.plan.k, "asyncio")
    return Ours(measured, stack.enter_context(Child(LoadClient, *arguments)))


def _fill(run: _Run, ours: Ours) -> float:
    """Seconds until all vectors are found; then nothing is left to do."""
    ours.cluster.create(_COLLECTION, run.dataset)
    ours.cluster.pin()
    seconds: float = ours.client.call(LoadClient.ingest, str(run.dataset.vectors_path), _COLLECTION)
    ours.cluster.settle()
    return seconds


def _ingest(run: _Run, ours: Ours) -> PeerIngest:
    count = len(run.dataset.vectors)
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(run.plan.ingest_rounds):
        run.tell(f"ingest, round {number + 1} of {run.plan.ingest_rounds}")
        if number:
            ours.cluster.delete(_COLLECTION)
        mine.append(count / _fill(run, ours))
        theirs.append(count / run.peer.client.call(ChromaClient.ingest, str(run.dataset.vectors_path)))
        wait_idle({"chroma": run.peer.server.pid})
        run.tell(f"  ours {mine[-1]:,.0f}/s, Chroma {theirs[-1]:,.0f}/s")
    return PeerIngest(count, spread(mine), spread(theirs), ratio(mine, theirs))


def _search(run: _Run, ours: Ours, shape: Shape) -> list[PeerSearch]:
    recall_of_ours = _ours(run, ours, shape.searches[-1]).recall
    breadth, reached = _narrowest(run, "Chroma", Match.FASTEST.least_recall(recall_of_ours), partial(_of_chroma, run))
    ours_breadth, _ = _narrowest(run, "ours", reached, partial(_of_ours, ours))
    fastest = [replace(workload, ef_search=ours_breadth) for workload in shape.searches]
    found = _compared(run, ours, shape, Match.FASTEST, fastest, breadth)
    breadth, _ = _narrowest(run, "Chroma", Match.OUR_RECALL.least_recall(recall_of_ours), partial(_of_chroma, run))
    return found + _compared(run, ours, shape, Match.OUR_RECALL, shape.searches, breadth)


def _compared(
    run: _Run, ours: Ours, shape: Shape, match: Match, searches: Sequence[SearchWorkload], breadth: int
) -> list[PeerSearch]:
    mine: dict[str, list[Figures]] = defaultdict(list)
    theirs: dict[str, list[Figures]] = defaultdict(list)
    for number in range(run.plan.rounds):
        run.tell(f"searches of {shape.name}, {match}, round {number + 1} of {run.plan.rounds}")
        for workload in searches:
            one, other = _ours(run, ours, workload), _theirs(run, workload)
            mine[workload.name].append(one)
            theirs[workload.name].append(other)
            run.tell(
                f"  {workload.name:<12} {one.queries_per_s:8,.0f}/s  p99 {one.latency_ms['p99']:7.2f} ms   "
                f"Chroma {other.queries_per_s:8,.0f}/s  p99 {other.latency_ms['p99']:7.2f} ms"
            )
    return [
        PeerSearch.of(workload, shape.name, match, breadth, mine[workload.name], theirs[workload.name])
        for workload in searches
    ]


def _narrowest(run: _Run, whose: str, wanted: float, found: Callable[[int], IdMatrix]) -> tuple[int, float]:
    """The fewest candidates for this recall, or the most there ever are when it is never reached; and the recall."""
    first = bisect_left(BREADTHS, wanted, key=lambda breadth: recall(found(breadth), run.dataset.truth))
    breadth = BREADTHS[min(first, len(BREADTHS) - 1)]
    # Once more, whatever was tried last: it is what goes on to be used.
    reached = recall(found(breadth), run.dataset.truth)
    run.tell(f"recall {wanted:.4f} wanted, {whose} {reached:.4f} with ef_search {breadth}")
    return breadth, reached


def _of_chroma(run: _Run, breadth: int) -> IdMatrix:
    """What Chroma finds once it looks at so many candidates, as it then goes on to do."""
    run.peer.client.call(ChromaClient.broaden, breadth)
    run.peer.server.restart()
    found: IdMatrix = run.peer.client.call(ChromaClient.found)
    return found


def _of_ours(ours: Ours, breadth: int) -> IdMatrix:
    found: IdMatrix = ours.client.call(LoadClient.found, breadth)
    return found


def _ours(run: _Run, ours: Ours, workload: SearchWorkload) -> Figures:
    pids = {"client": ours.client.pid, **ours.cluster.pids}
    load = ours.client.call(LoadClient.run, workload, pids, run.plan.warmup_s, run.plan.seconds)
    return figures(load, run.dataset.truth)


def _theirs(run: _Run, workload: SearchWorkload) -> Figures:
    pids = {"client": run.peer.client.pid, "chroma": run.peer.server.pid}
    load = run.peer.client.call(ChromaClient.run, workload, pids, run.plan.warmup_s, run.plan.seconds)
    return figures(load, run.dataset.truth)


def main(argv: Sequence[str], tell: Tell) -> int:
    about = f"{(__doc__ or '').partition(chr(10))[0]} Needs Chroma: pip install --editable '.[bench-peer]'"
    parser = command.parser("peer", about)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="of searches; default: 5")
    add("--ingest-rounds", type=int, default=3, help="times both sides take in the whole set; default: 3")
    add("--seconds", type=float, default=4.0, help="of each window; default: 4")
    add("--seed", type=int, default=1, help="default: 1")
    given = parser.parse_args(list(argv))
    chroma.check()
    plan = Plan(
        source=SMOKE_DATASET if given.smoke else DEFAULT_DATASET,
        k=10,
        rounds=1 if given.smoke else given.rounds,
        ingest_rounds=1 if given.smoke else given.ingest_rounds,
        seconds=0.5 if given.smoke else given.seconds,
        warmup_s=0.2 if given.smoke else 1.0,
        seed=given.seed,
    )
    report = run(plan, ["peer", *argv], tell)
    command.publish(given.output, "peer", report, markdown(report))
    return 0
