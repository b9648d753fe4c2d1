"""`kintsugi demo` as a user runs it: a process of its own, which leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kintsugi.demo.checks import Promise

pytestmark = pytest.mark.cluster

CHECKS = len(Promise)


class Demo:
    """A running demo. All processes it starts inherit its mark, by which they are found."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"KINTSUGI_DEMO_MARK={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kintsugi.cli", "demo"],
            env={**os.environ, name: value, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, start: str) -> None:
        for line in self.process.stdout:
            if line.startswith(start):
                return
        pytest.fail(f"the demo ended without saying {start!r}")

    def finish(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=480)
        return self.process.returncode, output

    def processes(self) -> dict[int, str]:
        """The command lines of its processes that are alive."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
        return found

    def wait_until_gone(self) -> None:
        deadline = time.monotonic() + 10
        while left := self.processes():
            assert time.monotonic() < deadline, left


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    for pid in demo.processes():
        os.kill(pid, signal.SIGKILL)
    demo.process.wait(10)
    demo.process.stdout.close()


def test_the_demo_runs_to_its_end_and_every_check_holds(demo):
    """It exits with 0, lists all its checks as ok, answers questions, and leaves neither process nor file."""
    code, output = demo.finish()
    assert code == 0, output
    assert len(re.findall(r"^  \[ok\] ", output, re.MULTILINE)) == CHECKS, output
    assert "[FAILED]" not in output
    assert re.search(r"imported [\d,]{4,} documents", output)
    assert len(re.findall(r"^ +\d+% re-embedded .* 0 failed$", output, re.MULTILINE)) == 5
    assert "all checks held" in output
    demo.wait_until_gone()
    assert not list(demo.folder.iterdir())


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGTERM, "created collection"), (signal.SIGINT, "killed shard-1"), (signal.SIGINT, "    0% re-embedded")],
)
def test_an_interrupted_demo_leaves_nothing_behind(demo, number, moment):
    """Ctrl-C and SIGTERM stop the cluster and remove its folder, also in the middle of the searches."""
    demo.read_until(moment)
    demo.process.send_signal(number)
    assert demo.finish()[0] == 130
    demo.wait_until_gone()
    assert not list(demo.folder.iterdir())


@pytest.mark.long
def test_a_demo_whose_cluster_breaks_fails_and_leaves_nothing_behind(demo):
    """A shard server that somebody else kills makes the demo exit with 1 and say which check failed."""
    demo.read_until("shard-1 is back in sync")
    victim = next(pid for pid, command in demo.processes().items() if " -m shard " in command and "/shard-0" in command)
    os.kill(victim, signal.SIGKILL)
    code, output = demo.finish()
    assert code == 1, output
    assert re.findall(r"^  \[FAILED\] (.*)$", output, re.MULTILINE) == [f"{Promise.DRAINED}: shard-0 ended with -9"]
    demo.wait_until_gone()
    assert not list(demo.folder.iterdir())
