"""The examples do what they say, against one cluster with two coordinators. They run as users run them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kintsugi import Client
from kintsugi.registry.records import Defaults

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
TIMEOUT_S = 120

# What each prints, in parts that do not depend on the machine.
SAYS = {
    "quickstart.py": ["wrote 1000 documents", "1.0000  article-42  {'section': 0}", "searched 1000 of 1000"],
    "concurrent_searches.py": ["200 concurrent searches", "the answers are the same: True"],
    "import_npy.py": ["imported 5000 of 5000 rows, 0 refused", "nearest to row 2500: [2500, "],
    "any_grpc_client.py": ["['WRITE_OUTCOME_APPLIED', 'WRITE_OUTCOME_APPLIED']", "{'integer': '1'} one"],
    "read_your_writes.py": ["20 of 20 writes", "documents: 20"],
    "handling_errors.py": [
        "INVALID_ARGUMENT: ", "document 1: refused ", "document 2: applied", "NOT_FOUND: ", "careful write: applied",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def addresses(shared_cluster) -> list[str]:
    return shared_cluster(servers=2, coordinators=2, defaults=Defaults(shards=2, replicas=2)).addresses


def run(name, arguments, folder) -> str:
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLES / name), *arguments],
        cwd=folder, env={**os.environ, "PYTHONWARNINGS": "error"}, capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", SAYS)
def test_an_example_does_what_it_says(name, addresses, tmp_path):
    """Examples are copied; one that does not run costs its reader an hour."""
    for _ in range(2):  # they leave nothing behind that a second run would meet
        said = run(name, addresses, tmp_path)
        assert [part for part in SAYS[name] if part not in said] == [], said
    with Client(addresses) as client:
        assert client.collections() == []


def test_a_file_of_ones_own_can_be_imported(addresses, tmp_path):
    """The example is a tool as well."""
    np.save(tmp_path / "mine.npy", np.random.default_rng(5).normal(size=(40, 5)))
    assert "imported 40 of 40 rows" in run("import_npy.py", ["--file", "mine.npy", *addresses], tmp_path)


def test_every_example_is_run_and_listed():
    """An example that nobody runs is wrong sooner or later."""
    found = {path.name for path in EXAMPLES.glob("*.py")}
    assert found == set(SAYS)
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in sorted(found) if f"[{name}]({name})" not in listed] == []
