"""The parts of the tables that need no processes: what is asked for, what metrics say, how figures are shown."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from bench import encodings
from bench.breakdown import broken_down, parse_stages
from bench.embeddings import Pair, from_file, stretched
from bench.encoding_results import EncodingReport, Row, SetResult, markdown
from bench.encodings import plan_of
from bench.origin import Origin, columns, save
from bench.statistics import Spread
from bench.workloads import DatasetSpec
from kintsugi.metrics import Metric
from kintsugi.telemetry import metric_names as names


def given(**changed):
    told = {"npz": [], "documents": [], "queries": [], "encoding": [], "no_generated": False, "smoke": False, "rounds": 5,
            "seconds": 0.5, "seed": 1}  # fmt: skip
    return argparse.Namespace(**(told | changed))


def test_one_file_serves_all_pairs_of_arrays():
    """Or each pair has its own."""
    pairs = {"documents": ["a", "b"], "queries": ["c", "d"]}
    one, two = Path("one.npz"), Path("two.npz")
    assert plan_of(given(npz=[one], **pairs)).pairs == [Pair(one, "a", "c"), Pair(one, "b", "d")]
    assert plan_of(given(npz=[one, two], **pairs)).pairs == [Pair(one, "a", "c"), Pair(two, "b", "d")]
    assert plan_of(given()).pairs == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"npz": [Path("a")], "documents": ["a"]},
        {"npz": [Path("a"), Path("b")], "documents": ["a"], "queries": ["b"]},
        {"documents": ["a"], "queries": ["b"]},
    ],
)
def test_arrays_without_their_file_or_queries_are_refused(wrong):
    """The message counts what was given."""
    with pytest.raises(ValueError, match="must be as many"):
        plan_of(given(**wrong))


def test_encodings_are_checked_before_anything_is_measured():
    """An hour into a run is too late."""
    with pytest.raises(ValueError, match="i9"):
        plan_of(given(encoding=["i9"]))


def test_vectors_without_a_direction_are_left_out(tmp_path):
    """A collection under cosine refuses them; the table says how many there were."""
    random = np.random.default_rng(1)
    documents, queries = random.standard_normal((50, 8)), random.standard_normal((5, 8))
    documents[[3, 4]] = 0.0
    queries[0] = 0.0
    path = tmp_path / "embeddings.npz"
    np.savez(path, d=documents.astype(np.float16), q=queries)
    one = from_file(Pair(path, "d", "q"), tmp_path / "set", k=3, queries=10)
    assert (one.vectors, one.queries, one.notes) == (48, 4, "2 vectors and 1 queries of zeros left out")
    ground = one.ground()
    assert ground.truth.rows.shape == (4, 3)
    with pytest.raises(ValueError, match="must have x"):
        from_file(Pair(path, "x", "q"), tmp_path / "other", k=3, queries=10)


def test_stretched_vectors_have_uneven_lengths_and_keep_their_directions(tmp_path):
    """So that an index which takes products for cosines is found out."""
    one = stretched(DatasetSpec("tiny", 400, 8, queries=9), tmp_path / "set", k=3, seed=1)
    lengths = np.linalg.norm(one.ground().vectors, axis=1)
    assert one.metric is Metric.DOT
    assert lengths.max() / lengths.min() > 5
    assert np.std(np.log(lengths)) == pytest.approx(0.5, rel=0.15)


def test_stages_are_read_from_the_metrics_of_a_server():
    """Sums of seconds by stage, the queue among them, and the queries."""
    stage = names.SEARCH_STAGE_SECONDS.name
    exposition = "\n".join(
        [
            f"# TYPE {stage} histogram",
            f'{stage}_bucket{{stage="index",le="+Inf"}} 4',
            f'{stage}_sum{{stage="index"}} 3.0',
            f'{stage}_count{{stage="index"}} 4',
            f'{stage}_sum{{stage="rescore"}} 1.0',
            f"# TYPE {names.QUEUE_SECONDS.name} histogram",
            f"{names.QUEUE_SECONDS.name}_sum 0.5",
            f"# TYPE {names.BATCH_QUERIES.name} histogram",
            f"{names.BATCH_QUERIES.name}_sum 40",
            "",
        ]
    )
    seconds, queries = parse_stages(exposition)
    assert (dict(seconds), queries) == ({"index": 3.0, "rescore": 1.0, "queue": 0.5}, 40)


def test_shares_are_of_the_search_thread_and_times_per_query():
    """Waiting in the queue is no work."""
    load = broken_down(16, [({"index": 3.0, "rescore": 1.0, "queue": 6.0}, 1000), ({"index": 1.0, "queue": 0.0}, 100)])
    assert load.queries == 1100
    assert load.ms_per_query["index"] == Spread(6.5, 3.0, 10.0)
    assert load.share["index"] == Spread(0.875, 0.75, 1.0)
    assert "queue" not in load.share
    assert load.ms_per_query["queue"].high == 6.0


def test_a_table_shows_memory_as_a_part_of_f32s(tmp_path):
    """And is saved beside the figures."""
    even = Spread(1.0, 1.0, 1.0)
    rows = [
        Row("f32", 1536, 1800.0, 1790.0, 0.0, 2.0, 0.999, {"2": 0.999, "3": 0.9991}, even, 9.0),
        Row("i8", 384, 600.0, 590.0, 384.0, 3.0, 0.998, {"3": 0.998}, Spread(2.1, 2.0, 2.2), 4.0),
    ]
    alone = {"binary": {"1": 0.5, "3": 0.75}, "recurrent-2": {"1": 0.6, "3": 0.9}}
    report = EncodingReport(Origin.of(["encodings"]), [SetResult("tiny", "dot", 1000, 384, 10, 10, "", rows, alone)])
    text = markdown(report)
    assert "| i8 | 384 | 600 | 33.3% | 384 | 0.9980 | 3 | 0.9980 | 2.10 (2.00..2.20) | 4.0 |" in text
    assert "| recurrent-2 | 0.6000 | 0.9000 |" in text
    assert "## tiny: 1,000 x 384, dot, 10 queries" in text
    path = save(tmp_path, "encodings", report.origin, report, text)
    assert path.with_suffix(".md").read_text() == text + "\n"


def test_columns_are_a_markdown_table():
    """Names to the left, numbers to the right."""
    assert columns(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_a_small_run_measures_memory_recall_and_throughput(tmp_path):
    """In child processes, from a plan to rows; never a time, and no memory, which is that of the allocator here."""
    spec = DatasetSpec("tiny", 3000, 16, queries=20)
    plan = encodings.Plan([], [spec], ("i8",), k=5, queries=20, rounds=1, seconds=0.01, seed=1)
    told = []
    cosine, dot = encodings.run(plan, ["encodings"], told.append).sets
    assert [row.encoding for row in cosine.rows] == [row.encoding for row in dot.rows] == ["f32", "i8"]
    assert all(row.recall > 0.9 for row in (*cosine.rows, *dot.rows))
    assert cosine.rows[1].code_bytes == 16
    assert (cosine.metric, dot.metric) == ("cosine", "dot")
    # More bits per element rank better, on a set of any size.
    alone = [cosine.graph_free[name]["3"] for name in ("binary", "recurrent-2", "recurrent-4")]
    assert alone == sorted(alone)
    assert any("i8" in line for line in told)
