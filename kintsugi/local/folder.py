"""The data folder of a local cluster: who uses it, what it remembers, and which ports it took.

Guarantees: one user at a time, counting processes that outlived their starter; cluster.json is replaced atomically.
A folder that was initialised once says so for ever, so that a Redis that lost everything is recovered from the
replicas and never initialised again. Knows nothing about processes.
"""

import fcntl
import os
import random
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from kintsugi.errors import FailedPrecondition, Unavailable

HOST = "127.0.0.1"
FORMAT_VERSION = 1

# Below the range that the kernel draws from for outgoing connections (32768 and up on Linux): a port of a process
# that is being restarted must not be taken by somebody's connection meanwhile.
_PORT_RANGE = range(15_000, 32_000)
_PORT_ATTEMPTS = 200
# How long the processes of a starter that was just killed may need to follow it.
_ORPHAN_WAIT_S = 5.0
_POLL_S = 0.05


# For Prometheus' file_sd_configs.
TARGETS_FILE = "prometheus-targets.json"


def metrics_port_of(name: str) -> str:
    """The name under which the port for a process' metrics is remembered."""
    return f"metrics-{name}"


class ClusterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What cluster.json holds. `ports` maps the names of processes, and of their metrics, to ports."""

    cluster_id: str
    servers: int
    coordinators: int
    initialised: bool = False
    ports: dict[str, int] = {}
    format_version: int = FORMAT_VERSION


class DataFolder:
    """Use between lock() and unlock()."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: BinaryIO | None = None

    @property
    def lock_descriptor(self) -> int:
        """Processes that inherit it keep the folder locked until the last of them is gone."""
        assert self._lock is not None, "the folder is locked first"
        return self._lock.fileno()

    def lock(self) -> None:
        """Raises FailedPrecondition when somebody else uses the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = (self.path / "lock").open("a+b")
        try:
            _lock_exclusively(lock, self.path)
        except BaseException:
            lock.close()
            raise
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        self._lock = lock

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read(self) -> ClusterFile | None:
        """None in a fresh folder."""
        file = self.path / "cluster.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=ClusterFile)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise FailedPrecondition(f"{file} cannot be read: {error}") from error

    def write_targets(self, ports: Mapping[str, int]) -> None:
        """Tells Prometheus where the processes serve their metrics."""
        targets = [{"targets": [f"{HOST}:{port}"], "labels": {"process": name}} for name, port in ports.items()]
        (self.path / TARGETS_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(targets), indent=2) + b"\n")

    def write(self, content: ClusterFile) -> None:
        file = self.path / "cluster.json"
        temporary = file.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)


def new_cluster_id() -> str:
    return uuid.uuid4().hex


def _lock_exclusively(lock: BinaryIO, path: Path) -> None:
    deadline = time.monotonic() + _ORPHAN_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().decode() or "another"
            if _is_alive(holder) or time.monotonic() >= deadline:
                raise FailedPrecondition(
                    f"data folder {path} is in use by process {holder}; stop it or choose another folder",
                    reason="FOLDER_IN_USE",
                ) from error
            time.sleep(_POLL_S)
        else:
            return


def _is_alive(holder: str) -> bool:
    """Whether the process that wrote the lock file runs. Its processes end with it, a moment later."""
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        return True
    return True


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Without this, connections of a process that has just exited would make its port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def take_port(remembered: int | None, taken: set[int]) -> int:
    """The remembered port when it is free, or another one: members tell the registry where they listen."""
    if remembered is not None and is_free(remembered):
        return remembered
    draw = random.SystemRandom()
    for _ in range(_PORT_ATTEMPTS):
        port = draw.choice(_PORT_RANGE)
        if port not in taken and is_free(port):
            return port
    raise Unavailable(f"no free port among {_PORT_ATTEMPTS} tried on {HOST}")
