"""Processes start, log, die with their starter, and are stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kintsugi.errors import FailedPrecondition
from kintsugi.local.process import Command, ManagedProcess

SLEEP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]

# Starts a sleeping process from a thread that ends, prints its id, and waits.
STARTER = f"""
import sys, threading, time
from pathlib import Path
from kintsugi.local.process import Command, ManagedProcess
process = ManagedProcess("child")
folder = Path(sys.argv[1])
command = Command({SLEEP!r}, dict(), folder, folder / "child.log")
thread = threading.Thread(target=process.start, args=[command])
thread.start()
thread.join()
print(process.pid, flush=True)
time.sleep(600)
"""


def deadline():
    return time.monotonic() + 30


def command(folder, arguments=SLEEP):
    return Command(arguments, dict(os.environ), folder, folder / "child.log")


def wait_for(condition):
    """Waits until the condition holds."""
    end = deadline()
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with Path(f"/proc/{pid}/stat").open() as stat:  # killed, and not yet collected by init
        return stat.read().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def process():
    managed = ManagedProcess("child")
    yield managed
    managed.signal(signal.SIGKILL)


def test_process_logs_to_its_file_and_stops_on_a_signal(process, tmp_path):
    """Output is appended to the log, and the exit code tells the signal."""
    process.start(command(tmp_path))
    wait_for(lambda: "up" in process.log_end())
    assert process.running
    assert process.exit_code is None
    process.signal(signal.SIGTERM)
    assert process.wait(deadline())
    assert process.exit_code == -signal.SIGTERM


def test_running_process_is_not_started_twice(process, tmp_path):
    """A second start would lose track of the first process."""
    process.start(command(tmp_path))
    with pytest.raises(FailedPrecondition, match="^child runs already as process"):
        process.start(command(tmp_path))


def test_process_starts_again_after_it_exited(process, tmp_path):
    """A killed process comes back under a new id and the log goes on."""
    process.start(command(tmp_path))
    first = process.pid
    process.signal(signal.SIGKILL)
    assert process.exit_code == -signal.SIGKILL
    process.start(command(tmp_path))
    assert process.running
    assert process.pid != first


def test_process_survives_the_thread_that_started_it(process, tmp_path):
    """The kernel ties it to the spawner's thread, not to the caller's."""
    thread = threading.Thread(target=process.start, args=[command(tmp_path)])
    thread.start()
    thread.join()
    wait_for(lambda: "up" in process.log_end())
    assert process.running


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_no_orphan_remains_when_the_starter_is_killed(tmp_path):
    """kill -9 of the starter takes the process along."""
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    pid = int(starter.stdout.readline())
    assert not is_gone(pid)
    starter.kill()
    starter.communicate()
    wait_for(lambda: is_gone(pid))


def test_huge_log_is_put_aside_at_start(process, tmp_path):
    """Logs do not grow for ever."""
    log = tmp_path / "child.log"
    with log.open("wb") as stream:
        stream.truncate(65 * 2**20)
    process.start(command(tmp_path))
    assert (tmp_path / "child.log.1").stat().st_size == 65 * 2**20
    assert log.stat().st_size < 100
