"""What a newcomer does: clones, sets up, starts a cluster, searches a file of their own. The README's own blocks are run.

Only in the long mode, because it installs everything anew.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 600


def block_after(heading: str, readme: str, first_line: str) -> str:
    """The fenced block below a heading that begins with a line."""
    section = readme.partition(f"## {heading}\n")[2]
    blocks = re.findall(r"^```[\w ]*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if block.startswith(first_line))


def test_the_readme_leads_from_a_clone_to_a_searched_file(tmp_path):
    """Nobody comes back after a first quarter of an hour that failed."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    readme = (ROOT / "README.md").read_text("utf-8")
    setup = block_after("Quickstart", readme, "make setup").replace("make setup", f"make setup PYTHON={sys.executable}")
    up = block_after("Quickstart", readme, "kintsugi up").strip()
    search = block_after("Your own vectors", readme, "python -c")
    clean = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}

    def terminal(script, **options):
        command = ["bash", "-euo", "pipefail", "-c", f"{setup}\n{script}"]
        return subprocess.Popen(
            command, cwd=tmp_path / "clone", env=clean | options.pop("env", {}), text=True, stdout=subprocess.PIPE,
            **options,
        )  # fmt: skip

    cluster = terminal(f"exec {up} --port 0")
    try:
        address = ""
        for line in cluster.stdout:
            address = line.split()[-1] if line.strip().startswith("coordinator ") else address
            if line.strip() == "Ctrl-C stops it.":
                break
        assert address
        second = terminal(search, env={"KINTSUGI_ADDRESS": address}, stderr=subprocess.STDOUT)
        said, _ = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 0, said
        assert "imported 5,000 of 5,000" in said
        assert len(re.findall(r"^ *1\.0+ +7 *$", said, re.MULTILINE)) == 2, said
        cluster.send_signal(signal.SIGINT)
        assert cluster.wait(PATIENCE_S) == 0
    finally:
        cluster.kill()
        cluster.communicate()
