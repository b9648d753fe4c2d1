"""A whole upgrade by the command line: planned, re-embedded by several workers of which one is killed, cut over, finished."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from harness.waiting import until

from kintsugi import Client, Model

pytestmark = pytest.mark.cluster

DOCUMENTS = 1500
OLD, NEW = 16, 12
PREFIX = "passage: "
EMBEDDING = """
import time, numpy as np
TURN = np.random.default_rng(0).standard_normal((16, 12))

def old(text):
    return np.random.default_rng(abs(hash_of(text))).standard_normal(16)

def hash_of(text):
    return int.from_bytes(text.encode()[-8:].rjust(8, b'0'), 'big')

def embed(texts):
    time.sleep(0.05)
    assert all(text.startswith('passage: ') for text in texts)
    return np.array([old(text.removeprefix('passage: ')) @ TURN for text in texts])
"""

_scope: dict = {}
exec(EMBEDDING, _scope)  # the worker's own code, so that both embed alike
old_vector, new_vectors = _scope["old"], _scope["embed"]


def text_of(number, version=0):
    return f"{version:02d}-{number:05d}"


def old_vectors(texts):
    return np.array([old_vector(text) for text in texts], dtype=np.float32)


@pytest.fixture
def command(new_cluster, tmp_path):
    """Starts a command of `upgrade` in a folder that has the embedding."""
    cluster = new_cluster(servers=2)
    (tmp_path / "embedding.py").write_text(EMBEDDING)

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "kintsugi.cli", "upgrade", *map(str, arguments)],
            env={**os.environ, "KINTSUGI_ADDRESS": cluster.address},
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    start.cluster = cluster
    return start


def done(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def status(client):
    return client.upgrade_status("docs")


async def test_an_upgrade_by_the_command_line(command, tmp_path):
    """Every document gets its vector, rewritten ones the right one; then the old model goes."""
    texts = [text_of(number) for number in range(DOCUMENTS)]
    sample = [text_of(number, 99) for number in range(600)]
    np.savez(
        tmp_path / "pairs.npz",
        old_documents=old_vectors(sample),
        new_documents=new_vectors([PREFIX + one for one in sample]),
    )
    with Client(command.cluster.address, timeout_s=30) as client:
        client.create_collection("docs", Model("old", OLD), shards=2, replicas=2)
        client.bulk_upsert("docs", range(DOCUMENTS), old_vectors(texts), texts=texts, acknowledgement="searchable")
        done(
            command(
                "plan",
                "docs",
                "--model",
                "new",
                "--dimension",
                NEW,
                "--sample",
                "pairs.npz",
                "--document-prefix",
                PREFIX,
            )
        )
        done(command("start", "docs"))
        await until(lambda: status(client).upgrade.state == "backfilling", "both models are served")

        worker = ("backfill", "docs", "--embed", "embedding:embed", "--batch", 25, "--lease", 3)
        first, second = command(*worker), command(*worker)
        await until(lambda: (status(client).migrated or 0) > 0.05, "the workers have begun")
        first.send_signal(signal.SIGKILL)
        first.communicate()
        rewritten = [text_of(number, 1) for number in range(0, DOCUMENTS, 10)]
        client.bulk_upsert("docs", range(0, DOCUMENTS, 10), old_vectors(rewritten), texts=rewritten, model="old")
        third = command(*worker, "--json")
        done(second)
        assert json.loads(done(third))["remaining"] == 0

        await until(lambda: status(client).migrated == 1.0, "every replica has every vector")
        texts[::10] = rewritten
        wanted = new_vectors([PREFIX + one for one in texts]).astype(np.float32)
        found = client.get("docs", range(DOCUMENTS)[:1000], vectors=True)
        for document in found.documents:
            np.testing.assert_allclose(document.vectors["new"], wanted[document.id], rtol=1e-5)
        done(command("cut-over", "docs"))
        assert [hit.id for hit in client.search("docs", wanted[7], 1)] == [7]
        done(command("finish", "docs", "--yes"))
        await until(lambda: status(client).upgrade.state == "finished", "the old model is gone")
        assert [hit.id for hit in client.search("docs", wanted[7], 1)] == [7]
