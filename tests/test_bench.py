"""The bench works from its command line: processes start, everything is measured, the result has its structure.

Never a time: on a busy machine any would be wrong.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.cluster
def test_a_smoke_run_leaves_a_complete_result(tmp_path):
    """One tiny workload and a recovery, from flags to the JSON file, the chart and the table."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "sdk-16", "recovery", "--smoke", "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("*.json")
    assert "sdk-16" in done.stdout
    assert written.with_suffix(".svg").read_text().startswith("<svg")
    result = json.loads(written.read_text())
    assert result["format_version"] == 1
    assert result["command"][:3] == ["python", "-m", "bench"]
    assert {"commit", "date", "settings", "versions"} <= result.keys()
    assert result["settings"]["seed"] == 1
    assert {"cores", "memory_bytes", "python", "load_average"} <= result["machine"].keys()
    assert result["dataset"] == {
        "name": "smoke-6k-64", "vectors": 6000, "dimension": 64, "queries": 100, "metric": "cosine",
    }  # fmt: skip
    check_search(*result["searches"])
    assert result["ingest"]["vectors"] == 6000
    assert result["ingest"]["of_raw"].keys() == {"median", "low", "high"}
    assert result["memory"].keys() == {"valkey", "shard-0", "shard-1", "coordinator-0", "raw-0", "raw-1"}
    assert all(memory["anonymous_bytes"] <= memory["resident_bytes"] for memory in result["memory"].values())
    (killed,) = result["recovery"]["rounds"]
    assert killed["server"] == "shard-0"
    assert killed["serving_s"] <= killed["caught_up_s"]
    assert killed["recall"] > 0.9


def check_search(search):
    assert (search["name"], search["callers"], search["batch"]) == ("sdk-16", 16, 1)
    assert search["cluster"]["recall"] > 0.9
    assert search["raw"]["recall"] > 0.9
    (one,) = search["cluster"]["rounds"]
    assert one["queries"] > 0
    assert one["errors"] == {}
    assert one["cores_elsewhere"] >= 0
    assert one["latency_ms"].keys() == {"p50", "p90", "p99"}
    assert one["cpu_ms_per_query"].keys() == {"client", "valkey", "shard-0", "shard-1", "coordinator-0"}


def test_help_names_every_workload_and_dataset():
    """What can be asked for is found without reading the code."""
    from bench.workloads import DATASETS, RECOVERY, SEARCHES

    command = [sys.executable, "-m", "bench", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in [*(one.name for one in (*SEARCHES, *DATASETS)), RECOVERY]:
        assert name in done.stdout


def written_by(command, folder):
    """What a smoke run of a table leaves, after a look at its markdown."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", command, "--smoke", "--output", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob(f"*-{command}.json")
    assert path.with_suffix(".md").read_text().strip() in done.stdout
    result = json.loads(path.read_text())
    assert result["origin"]["command"][:4] == ["python", "-m", "bench", command]
    return result


@pytest.mark.cluster
def test_a_smoke_overload_offers_parts_of_the_capacity_with_and_without_injection(tmp_path):
    """Every call has an outcome, and answers are right under any load."""
    injected, plain = written_by("overload", tmp_path)["phases"]
    assert (injected["injected_ms"], plain["injected_ms"]) == (5, 0)
    for phase in (injected, plain):
        (windows,) = phase["rounds"]
        assert [window["factor"] for window in windows] == [None, 0.5, 1.0, 2.0]
        for window in windows:
            assert window["recall"] > 0.9
            assert window["shard_busy"] > 0
            assert window["cpu_ms"].keys() == {"client", "valkey", "shard-0", "shard-1", "coordinator-0"}


@pytest.mark.cluster
@pytest.mark.long
def test_a_smoke_tail_searches_on_while_a_replica_is_slow(tmp_path):
    """Every call has an outcome, and what second tries cost is told."""
    result = written_by("tail", tmp_path)
    for window in (*result["well"], *result["slow"]):
        assert window["calls"] == 50
        assert window["recall"] > 0.9
        assert window["second_tries"] >= 0
    assert len(result["well"]) == len(result["slow"]) == 1


@pytest.mark.cluster
@pytest.mark.skipif(importlib.util.find_spec("chromadb") is None, reason="Chroma is not installed")
def test_a_smoke_peer_measures_both_sides_alike(tmp_path):
    """Everything is measured, and every figure has its recall."""
    check_peer(written_by("peer", tmp_path))


@pytest.mark.cluster
@pytest.mark.long
def test_a_smoke_growth_fits_its_model_and_draws_it(tmp_path):
    """Everything is measured, and every figure has its recall."""
    check_growth(written_by("growth", tmp_path))
    assert list(tmp_path.glob("*-growth.svg"))


def check_growth(result):
    assert [one["vectors_per_shard"] for one in result["sizes"]] == [1500, 3000]
    assert [one["shards"] for one in result["fan_out"]] == [1, 2, 3]
    for one in [*result["sizes"], *result["fan_out"]]:
        (window,) = one["windows"]
        assert window["recall"] > 0.9
        assert window["errors"] == 0
        assert window["search_ms"] > 0
    assert result["model"]["error"].keys() == {"median", "low", "high"}
    assert [one["shards"] for one in result["model"]["apart"]] == [1, 2, 3, 8, 16, 64]


def check_peer(result):
    fastest, ours = "Chroma at its fastest", "Chroma at our recall"
    assert [(one["name"], one["shape"], one["match"]) for one in result["searches"]] == [
        ("sdk-16", "2 x 1", fastest),
        ("sdk-64", "2 x 1", fastest),
        ("sdk-16", "2 x 1", ours),
        ("sdk-64", "2 x 1", ours),
        ("batch-64x4", "1 x 2", fastest),
        ("batch-64x4", "1 x 2", ours),
    ]
    for one in result["searches"]:
        for side in (one["ours"], one["chroma"]):
            assert side["recall"] > 0.9
            assert side["rounds"][0]["errors"] == {}
            assert side["rounds"][0]["queries"] > 0
    assert result["ingest"]["vectors"] == 6000
    assert result["memory"]["ours"].keys() == {"valkey", "shard-0", "shard-1", "coordinator-0"}
    assert len(result["targets"]) == 18
