"""Failpoints act in the process that the environment arms, and nowhere else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def test_a_delay_without_its_file_changes_nothing(tmp_path):
    """A minute at each hit would not end: one process is measured with and without it, in turns."""
    output, _ = start(f"replay.after_commit=delay:60000:{tmp_path / 'slow'}").communicate(timeout=30)
    assert output.split() == ["0", "1", "2", "3", "4"]


def test_a_delay_holds_the_thread_while_its_file_exists(tmp_path):
    """The process stands at its first hit, for the minute that it was told."""
    file = tmp_path / "slow"
    file.touch()
    process = start(f"replay.after_commit=delay:60000:{file}")
    assert process.stdout.readline() == "0\n"
    process.kill()
    output, _ = process.communicate(timeout=30)
    assert output == ""


def test_a_short_delay_lets_every_hit_pass():
    """It acts at each of them and ends by itself."""
    output, _ = start("replay.after_commit=delay:1").communicate(timeout=30)
    assert output.split() == ["0", "1", "2", "3", "4"]


def test_a_point_is_armed_with_what_the_variable_says():
    """Paths may hold colons; milliseconds become seconds."""
    armed = "searcher.batch=delay:5, replay.before_commit=delay:200:/a:b, replay.after_commit=pause:/a@2"
    assert failpoints.parse(armed) == {
        failpoints.Failpoint.SEARCHER_BATCH: failpoints.Delay(0.005, None),
        failpoints.Failpoint.REPLAY_BEFORE_COMMIT: failpoints.Delay(0.2, Path("/a:b")),
        failpoints.Failpoint.REPLAY_AFTER_COMMIT: failpoints.Pause(2, Path("/a")),
    }


@pytest.mark.parametrize("text", ["nowhere=kill", "replay.after_commit=explode", "replay.after_commit=kill@0",
                                  "replay.after_commit=pause", "replay.after_commit", "replay.after_commit=kill:/file",
                                  "replay.after_commit=delay", "replay.after_commit=delay:soon",
                                  "replay.after_commit=delay:5:", "replay.after_commit=delay:5@2"])  # fmt: skip
def test_malformed_failpoint_is_refused(text):
    """A misspelt failpoint would make a test pass for nothing."""
    with pytest.raises(ValueError, match="^KINTSUGI_FAILPOINTS"):
        failpoints.parse(text)
