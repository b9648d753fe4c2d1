"""A process ends with the exit code that tells why."""

import json
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, sys
from kintsugi import telemetry
from kintsugi.errors import Unavailable
from kintsugi.rpc.server import run_process

async def main(stop):
    what = sys.argv[1]
    if what == "refuse":
        raise Unavailable("redis does not answer")
    if what == "defect":
        raise ValueError("secret")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    print("ready", flush=True)
    await stop.wait()
    print("drained", flush=True)

telemetry.configure_logging("json", "info", process="test")
sys.exit(run_process(main))
"""


def start(what):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_the_process_drain_and_exit_with_0(number):
    """Both signals mean the same: finish and go."""
    process = start("wait")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, log = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "drained\n")
    events = [json.loads(line) for line in log.splitlines()]
    assert [event["event"] for event in events] == ["process_stopping", "process_stopped"]
    assert events[0]["signal"] == number.name
    assert events[0]["process"] == "test"


def test_error_of_ours_is_one_line_and_exit_code_1():
    """An operator reads what to do, without a traceback."""
    process = start("refuse")
    _, log = process.communicate(timeout=30)
    (line,) = [json.loads(text) for text in log.splitlines()]
    assert process.returncode == 1
    assert (line["event"], line["message"], line["reason"]) == (
        "process_refused",
        "redis does not answer",
        "UNAVAILABLE",
    )
    assert "exception" not in line


def test_defect_is_logged_with_its_traceback_and_exit_code_1():
    """What nobody foresaw must be found again."""
    process = start("defect")
    _, log = process.communicate(timeout=30)
    (line,) = [json.loads(text) for text in log.splitlines()]
    assert process.returncode == 1
    assert line["event"] == "process_failed"
    assert "ValueError: secret" in line["exception"]


def test_crash_in_native_code_leaves_the_stacks():
    """What a segmentation fault interrupted stands in the process's log."""
    process = start("crash")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in errors
    assert "in main" in errors
