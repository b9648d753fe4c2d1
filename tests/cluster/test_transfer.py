"""Imports and exports of the command line are killed for real, run again, and lose and repeat nothing."""

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

DOCUMENTS = 60_000
DIMENSION = 16


def kintsugi(cluster, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "kintsugi.cli", *map(str, arguments)],
        env={**os.environ, "KINTSUGI_ADDRESS": cluster.address},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def saved(state, field):
    """A number of a state file, 0 while there is none."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads(state.read_text())[field]
    return 0


def stop_midway(process, number, state, field, beyond):
    """Sends the signal once the state says that more than `beyond` are done."""
    end = time.monotonic() + 120
    while saved(state, field) <= beyond:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the transfer did not get that far"
        time.sleep(0.005)
    process.send_signal(number)
    output = process.communicate(timeout=60)
    assert process.returncode != 0, output
    return output


def test_a_killed_import_goes_on_without_duplicates_and_an_export_too(new_cluster, tmp_path):
    """kill -9, then Ctrl-C, then the end: every document is there, and was written exactly once."""
    cluster = new_cluster(servers=2)
    vectors = np.random.default_rng(3).normal(size=(DOCUMENTS, DIMENSION)).astype(np.float32)
    file = tmp_path / "docs.npy"
    np.save(file, vectors)
    state = tmp_path / "docs.npy.docs.import.json"
    with Client(cluster.address, timeout_s=30) as client:
        client.create_collection("docs", Model("m", DIMENSION), shards=2)

        command = ("import", file, "docs", "--batch", "100")
        stop_midway(kintsugi(cluster, *command), signal.SIGKILL, state, "place", 0)
        first = saved(state, "place")
        assert 0 < first < DOCUMENTS
        _, errors = stop_midway(kintsugi(cluster, *command), signal.SIGINT, state, "place", first)
        assert "the same command goes on from here" in errors
        second = saved(state, "place")
        output, errors = (last := kintsugi(cluster, *command, "--json")).communicate(timeout=240)
        assert last.returncode == 0, errors
        told = json.loads(output)
        assert (told["items"], told["applied"], told["refused"]) == (DOCUMENTS, DOCUMENTS, 0)
        assert told["resumed_at"] == second >= first
        assert not state.exists()
        assert client.count("docs") == DOCUMENTS
        shards = client.status("docs").collections[0].shards
        assert sum(shard.log_seq for shard in shards) == DOCUMENTS  # a repeated write would have a number of its own

        out = tmp_path / "out.npy"
        state = tmp_path / "out.npy.export.json"
        stop_midway(kintsugi(cluster, "export", "docs", out), signal.SIGKILL, state, "documents", 0)
        assert not out.exists()
        assert 0 < saved(state, "documents") < DOCUMENTS
        output, errors = (last := kintsugi(cluster, "export", "docs", out, "--json")).communicate(timeout=120)
        assert last.returncode == 0, errors
        assert json.loads(output)["resumed_at"] > 0
        assert np.array_equal(np.load(tmp_path / "out.ids.npy"), np.arange(DOCUMENTS))
        assert np.array_equal(np.load(out), vectors)
    cluster.stop()


def test_refused_lines_stand_in_the_rejects_with_their_number(new_cluster, tmp_path):
    """The good ones are imported, the others can be mended and imported by themselves."""
    cluster = new_cluster(servers=1)
    file = tmp_path / "docs.jsonl"
    lines = [json.dumps({"id": i, "vector": [i, 1]}) for i in range(20)]
    lines[4], lines[9] = '{"id": 4, "vector": [1]}', '{"id": 9, "vector": [1, 1], "txt": ""}'
    lines[15] = json.dumps({"id": "", "vector": [1, 1]})
    file.write_text("\n".join(lines))
    with Client(cluster.address) as client:
        client.create_collection("docs", Model("m", 2))
        process = kintsugi(cluster, "import", file, "docs")
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "imported 17 of 20 documents" in output
        assert "refused: 3 items, see" in errors
        assert client.count("docs") == 17
    rejects = (tmp_path / "docs.jsonl.docs.rejects.jsonl").read_text().splitlines()
    assert [(item["where"], item["id"]) for item in map(json.loads, rejects)] == [
        ("line 5", 4),
        ("line 10", 9),
        ("line 16", ""),
    ]
    cluster.stop()
