"""Failpoints act in the process that the environment arms, and nowhere else."""

import os
import signal
import subprocess
import sys
import time

import pytest

from kintsugi import failpoints

HIT_FIVE_TIMES = """
from kintsugi import failpoints
for number in range(5):
    print(number, flush=True)
    failpoints.hit("replay.after_commit")
"""


def start(armed):
    """A process that hits one point five times, printing a number before each."""
    environment = {**os.environ, failpoints.ENVIRONMENT_VARIABLE: armed}
    return subprocess.Popen([sys.executable, "-c", HIT_FIVE_TIMES], env=environment, stdout=subprocess.PIPE, text=True)


def test_kill_happens_at_the_given_hit():
    """kill@3 lets two hits pass."""
    process = start("replay.after_commit=kill@3")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert output.split() == ["0", "1", "2"]


def test_other_points_and_no_points_change_nothing():
    """A point that is not armed is passed."""
    for armed in ("", "writes.before_append=kill"):
        process = start(armed)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert output.split() == ["0", "1", "2", "3", "4"]


def test_pause_lasts_while_its_file_exists(tmp_path):
    """The file appears when the point is reached; removing it lets the process go on."""
    file = tmp_path / "paused"
    process = start(f"replay.after_commit=pause:{file}@2")
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline
    assert process.poll() is None
    file.unlink()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert output.split() == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("text", ["nowhere=kill", "replay.after_commit=explode", "replay.after_commit=kill@0",
                                  "replay.after_commit=pause", "replay.after_commit"])  # fmt: skip
def test_malformed_failpoint_is_refused(text):
    """A misspelt failpoint would make a test pass for nothing."""
    with pytest.raises(ValueError, match="^KINTSUGI_FAILPOINTS"):
        failpoints.parse(text)
