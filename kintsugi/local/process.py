"""One process of a local cluster: started under guard, logging to a file, signalled and waited for.

Guarantees that no process outlives this one (Linux). The kernel ties a child's life to the *thread* that started it,
so all are started by one thread that lives until the interpreter ends; callers may use any thread.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kintsugi.errors import FailedPrecondition

_GUARD = Path(__file__).with_name("guard.py")
_MAX_LOG_BYTES = 64 * 2**20
_LOG_END_LINES = 5
# A traceback in a JSON line is long, and its end says most.
_LOG_LINE_CHARACTERS = 600
_POLL_S = 0.02

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kintsugi-spawner")


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: an absolute program with its arguments, its whole environment, and where its output goes."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log_path: Path


class ManagedProcess:
    """May be started again after it has exited."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log_path = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Command, inherited: Sequence[int] = ()) -> None:
        """Starts the process in a session of its own, so that a Ctrl-C in the terminal reaches only this one, which
        then stops the others in order. `inherited` are file descriptors that it keeps open."""
        if self.running:
            raise FailedPrecondition(f"{self.name} runs already as process {self.pid}")
        self.log_path = command.log_path
        _rotate(command.log_path)
        arguments = [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *command.arguments]
        with command.log_path.open("ab") as log:
            self._process = _spawner.submit(
                subprocess.Popen,
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(command.environment),
                cwd=command.folder,
                start_new_session=True,
                pass_fds=tuple(inherited),
            ).result()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise FailedPrecondition(f"{self.name} was not started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None before the start and while it runs; the negated signal when a signal ended it."""
        return None if self._process is None else self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when the process has exited. After SIGKILL it is gone on return."""
        if self._process is None:
            return
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def wait(self, deadline: float) -> bool:
        """Whether it has exited before the deadline of time.monotonic()."""
        while self.running:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def log_end(self) -> str:
        """The last lines of the log, for error messages."""
        if not self.log_path.is_file():
            return ""
        lines = self.log_path.read_text("utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line[-_LOG_LINE_CHARACTERS:]}" for line in lines[-_LOG_END_LINES:])


def _rotate(log_path: Path) -> None:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > _MAX_LOG_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
