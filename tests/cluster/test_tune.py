"""`kintsugi tune` against a real cluster: what it recommends and rolls out then finds what it promised."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kintsugi import Client, Model

pytestmark = pytest.mark.cluster

DOCUMENTS = 6000
DIMENSION = 48
K = 10


def points(count, seed):
    """Around a subspace, as embeddings are."""
    directions = np.random.default_rng(0).standard_normal((10, DIMENSION))
    random = np.random.default_rng(seed)
    inside = random.standard_normal((count, 10)) @ directions
    return (inside + 0.3 * random.standard_normal((count, DIMENSION))).astype(np.float32)


@pytest.fixture(scope="module")
def filled(shared_cluster):
    """Two shards, each large enough for a graph."""
    cluster = shared_cluster(servers=2)
    with Client(cluster.address, timeout_s=30) as client:
        client.create_collection("docs", Model("m", DIMENSION), shards=2, replicas=1)
        client.bulk_upsert("docs", range(DOCUMENTS), points(DOCUMENTS, 1), acknowledgement="searchable")
        client.create_collection("tiny", Model("m", DIMENSION), shards=1, replicas=1)
        client.bulk_upsert("tiny", range(5), points(5, 1), acknowledgement="searchable")
    return cluster


def started(cluster, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "kintsugi.cli", "tune", *map(str, arguments)],
        env={**os.environ, "KINTSUGI_ADDRESS": cluster.address, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def tune(cluster, *arguments):
    process = started(cluster, *arguments)
    output, errors = process.communicate(timeout=240)
    return process.returncode, output, errors


def measured_recall(client, queries):
    """Of what the cluster answers, against its own exact search."""
    found, true = (
        np.concatenate(
            [client.search_batch("docs", queries[at : at + 100], K, exact=exact).ids for at in (0, 100, 200)]
        )
        for exact in (False, True)
    )
    return np.mean([len(np.intersect1d(mine, best)) / K for mine, best in zip(found, true, strict=True)])


def test_what_is_recommended_and_applied_measures_as_promised(filled, tmp_path):
    """From a sample that is everything to a rolled-out encoding, whose recall is within one hundredth of the promise."""
    plot = tmp_path / "plot.svg"
    code, output, errors = tune(filled, "docs", "--recall", "0.97", "--memory", "10MB", "--throughput", "0",
                                "--encoding", "i8", "--encoding", "f16", "--plot", plot, "--apply", "--json")  # fmt: skip
    assert code == 0, errors
    told = json.loads(output)
    assert told["recommended"]["encoding"] == "i8"
    assert told["recommended"]["copy_bytes"] < 10_000_000
    assert told["subject"]["sampled"] + told["subject"]["queries"] == DOCUMENTS
    assert not told["subject"]["extrapolated"]
    assert plot.read_text().count("<svg") == 1
    with Client(filled.address, timeout_s=30) as client:
        assert client.collection("docs").encoding == "i8"
        recall = measured_recall(client, points(300, 2))
    assert abs(recall - told["recommended"]["recall"]) <= 0.01


def test_a_sample_says_that_it_is_one(filled, tmp_path):
    """A person sees on how much the figures stand, and what to type next; real queries may be given."""
    np.save(tmp_path / "queries.npy", points(50, 3))
    code, output, errors = tune(filled, "docs", "--sample", "1000", "--queries-file", tmp_path / "queries.npy",
                                "--encoding", "i8", "--throughput", "0", "--recall", "0.5")  # fmt: skip
    assert code == 0, errors
    assert "measured on 1,000 of 6,000 vectors with 50 queries (queries.npy)" in output
    assert "recalls are extrapolated" in output
    assert "at worst" in output
    assert "to roll it out: kintsugi collection encode docs --encoding i8" in output


def test_what_cannot_be_had_is_told_with_what_can(filled):
    """The exit code is 1 and nothing is applied."""
    code, output, errors = tune(filled, "docs", "--memory", "100kB", "--encoding", "i8", "--sample", "1000", "--apply")
    assert code == 1
    assert "recommended" not in output
    assert "nothing fits: no setting meets recall 0.98, 100 kB of memory" in errors


def test_a_collection_that_is_too_small_is_told_apart(filled):
    """No traceback, and the numbers."""
    code, _, errors = tune(filled, "tiny", "--encoding", "i8")
    assert code == 1
    assert "error: collection tiny is too small to be tuned: the sample has 4 vectors" in errors


def test_ctrl_c_leaves_nothing_behind(filled, tmp_path):
    """In the middle of a build: temporary files are removed, and the cluster never knew."""
    process = started(filled, "docs", TMPDIR=str(tmp_path))
    end = time.monotonic() + 120
    while not files_of(tmp_path):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no index was ever built"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("kintsugi-tune-*"))


def files_of(folder):
    return list(folder.glob("kintsugi-tune-*/*"))
