"""`python -m bench peer`, the parts that need no Chroma: how broad it must search, the targets, the table, what is missing."""

import ast
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import chroma
from bench.child import Child
from bench.chroma import ChromaClient
from bench.origin import Origin
from bench.peer import BREADTHS
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
from bench.processes import Memory
from bench.results import Figures
from bench.statistics import Spread, recall
from bench.workloads import SMOKE_DATASET, searches_named
from kintsugi.errors import FailedPrecondition
from kintsugi.metrics import Metric
from kintsugi.tuning.truth import exact_top_k

ROOT = Path(__file__).resolve().parents[3]
MB = 10**6


def figures(queries_per_s, p99_ms, found=0.995):
    latency = {"p50": p99_ms / 2, "p90": p99_ms, "p99": p99_ms}
    return Figures(1000, queries_per_s, latency, found, {"client": 0.1}, {}, 0.0)


def search(name, ours, theirs, match=Match.FASTEST):
    (workload,) = searches_named([name])
    return PeerSearch.of(workload, "2 x 1", match, 64, ours, theirs)


def report(**changed):
    ours = {"shard-0": Memory(200 * MB, 100 * MB), "valkey": Memory(20 * MB, 10 * MB)}
    memory = PeerMemory(ours, Memory(0, 400 * MB), Memory(0, 900 * MB))
    told = {
        "ingest": PeerIngest(6000, Spread(300, 300, 300), Spread(200, 200, 200), Spread(1.5, 1.5, 1.5)),
        "searches": [
            search("sdk-16", [figures(900, 2.0), figures(1000, 2.5)], [figures(200, 20.0), figures(250, 20.0)]),
            search("batch-64x4", [figures(1200, 2.0)], [figures(1000, 20.0)]),
        ],
        "memory": memory,
    }
    plan = Plan(SMOKE_DATASET, k=10, rounds=2, ingest_rounds=1, seconds=0.5, warmup_s=0.1, seed=1)
    made = PeerReport(Origin.of(["peer"]), plan, **(told | changed))
    made.targets = targets(made)
    return made


def test_the_peer_is_as_narrow_as_its_recall_allows():
    """For its fastest, as good as ours is enough, and so is good at all; else as good as ours, but for chance."""
    assert Match.FASTEST.least_recall(0.96) == 0.96
    assert Match.FASTEST.least_recall(0.9983) == 0.99
    assert Match.OUR_RECALL.least_recall(0.9983) == pytest.approx(0.9978)
    assert list(BREADTHS) == sorted(set(BREADTHS))  # the first that is broad enough is the narrowest


def test_each_target_tells_what_is_wanted_measured_and_whether_it_is_met():
    """Ratios are those of rounds; batches have no target for p99."""
    found = {one.name: one for one in report().targets}
    assert list(found) == [
        "sdk-16 on 2 x 1, both at their fastest: throughput",
        "sdk-16 on 2 x 1, both at their fastest: p99",
        "sdk-16 on 2 x 1, both at their fastest: recall",
        "batch-64x4 on 2 x 1, both at their fastest: throughput",
        "batch-64x4 on 2 x 1, both at their fastest: recall",
        "ingest until searchable",
        "anonymous memory, one replica",
    ]
    assert found["sdk-16 on 2 x 1, both at their fastest: throughput"].measured == "4.25 x (4.00..4.50)"
    assert {name for name, one in found.items() if not one.is_met} == {
        "batch-64x4 on 2 x 1, both at their fastest: throughput"
    }


def test_memory_may_be_half_of_the_peers_and_60_mb_per_process():
    """Of the sum of all our processes, Valkey among them."""
    memory = report().memory
    assert (memory.ours_bytes, memory.limit_bytes) == (110 * MB, 320 * MB)
    more = replace(memory, ours={**memory.ours, "shard-0": Memory(500 * MB, 400 * MB)})
    assert not targets(report(memory=more))[-1].is_met


def test_a_worse_recall_is_not_made_up_by_throughput():
    """Ours must be as good as the peer's, or good at all."""
    worse = search("sdk-16", [figures(9000, 1.0, found=0.98)], [figures(100, 20.0, found=0.985)])
    found = {one.name: one.is_met for one in targets(report(searches=[worse]))}
    assert not found["sdk-16 on 2 x 1, both at their fastest: recall"]
    good = search("sdk-16", [figures(9000, 1.0, found=0.991)], [figures(100, 20.0, found=0.999)])
    assert {one.name: one.is_met for one in targets(report(searches=[good]))}[
        "sdk-16 on 2 x 1, both at their fastest: recall"
    ]
    equal = search("sdk-16", [figures(9000, 1.0, found=0.991)], [figures(100, 20.0, found=0.999)], Match.OUR_RECALL)
    assert not {one.name: one.is_met for one in targets(report(searches=[equal]))}[
        "sdk-16 on 2 x 1, Chroma at our recall: recall"
    ]


def test_the_table_tells_recall_beside_every_figure():
    """And the verdict of each target."""
    text = markdown(report())
    assert (
        "| batch-64x4 on 2 x 1, both at their fastest: throughput | >= 1.3 x | 1.20 x (1.20..1.20) | NOT MET |" in text
    )
    assert (
        "| sdk-16 | 2 x 1 | 950 | 1.12 | 2.25 | 0.9950 | learned | 225 | 10.00 | 20.00 | 0.9950 | 64 | 0 and 0 | 0.00 |"
        in text
    )
    assert "| all of ours | 110 | 220 |\n| Chroma | 400 | 0 |\n| Chroma after ingest | 900 | 0 |" in text


def test_a_missing_peer_is_told_with_how_to_install_it():
    """Before anything is prepared."""
    with pytest.raises(FailedPrecondition, match=r"peer needs Chroma: pip install --editable '.\[bench-peer\]'"):
        chroma.check("no_such_module")


def test_only_one_module_knows_the_peer():
    """Nothing imports it at the top, so that everything else works without it."""
    for folder in ("bench", "coordinator", "kintsugi", "shard"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert not any((name or "").split(".")[0] == "chromadb" for name in imported), path


@pytest.mark.cluster
@pytest.mark.skipif(importlib.util.find_spec("chromadb") is None, reason="Chroma is not installed")
def test_a_peer_that_is_broadened_finds_more(tmp_path):
    """So that raising its recall is no illusion: an index that is loaded would keep its breadth."""
    random = np.random.default_rng(1)
    vectors, queries = (random.standard_normal((count, 32)).astype(np.float32) for count in (3000, 50))
    np.save(tmp_path / "vectors.npy", vectors)
    np.save(tmp_path / "queries.npy", queries)
    truth = exact_top_k(Metric.COSINE, vectors, queries, 10).rows
    # In a process of its own, as in a run: its warnings are not ours.
    where = str(tmp_path / "queries.npy"), 10
    with chroma.ChromaServer(tmp_path / "chroma") as server, Child(ChromaClient, server.port, *where) as client:
        client.call(ChromaClient.ingest, str(tmp_path / "vectors.npy"))
        found = []
        for breadth in (10, 400):
            client.call(ChromaClient.broaden, breadth)
            server.restart()
            found.append(recall(client.call(ChromaClient.found), truth))
    assert found[0] + 0.1 < found[1]
