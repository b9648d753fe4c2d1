"""A whole cluster as real processes on this machine: for `kintsugi up`, the demo and the tests.

Guarantees: the data folder survives restarts and has one user; no process outlives this one; stop() drains in the order
coordinators, shard servers, Valkey, and kills what takes too long; the registry is created once in the life of a data
folder. Blocking; call it from any thread. Does not restart what dies: supervisor.py does.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import msgspec

from kintsugi.errors import FailedPrecondition, InvalidArgument, Unavailable
from kintsugi.local import readiness, valkey
from kintsugi.local.folder import HOST, ClusterFile, DataFolder, is_free, metrics_port_of, new_cluster_id, take_port
from kintsugi.local.initialise import change_defaults, initialise
from kintsugi.local.process import Command, ManagedProcess
from kintsugi.registry.records import Defaults

VALKEY = "valkey"
# Draining answers calls in flight (10 s assumed deadline); shard servers then save checkpoints.
_STOP_ORDER = (("coordinator", 20.0), ("shard", 60.0), (VALKEY, 20.0))
_VALKEY_LOAD_S = 300.0
_READY_POLL_S = 0.1
# The packages stand beside each other, whether installed or checked out.
_CODE_FOLDER = Path(__file__).resolve().parent.parent.parent


class LocalCluster:
    """`with LocalCluster(folder) as cluster: cluster.wait_ready(); Client(cluster.address)`.

    `servers` and `coordinators` default to what the folder remembers, then to 2 and 1. `port` is that of coordinator-0,
    the others follow; 0 takes free ones and remembers them. `defaults` are what new collections get; None changes
    nothing. `env` goes to every process on top of this one's environment."""

    def __init__(
        self,
        data: Path,
        servers: int | None = None,
        coordinators: int | None = None,
        redis_url: str | None = None,
        port: int = 0,
        defaults: Defaults | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = DataFolder(data)
        self._servers = servers
        self._coordinators = coordinators
        self._outside_redis_url = redis_url
        self._port = port
        self._defaults = defaults
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        search_path = [str(_CODE_FOLDER), self._environment.get("PYTHONPATH", "")]
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, search_path))
        self._namespace = self._environment.get("KINTSUGI_NAMESPACE", "kintsugi")
        self._processes: dict[str, ManagedProcess] = {}
        self._file: ClusterFile | None = None

    # --- what it is

    @property
    def data(self) -> Path:
        return self._folder.path

    @property
    def cluster_id(self) -> str:
        return self._known.cluster_id

    @property
    def redis_url(self) -> str:
        return self._outside_redis_url or f"redis://{self.address_of(VALKEY)}"

    @property
    def addresses(self) -> list[str]:
        """Where clients reach the coordinators."""
        return [self.address_of(name) for name in self.names() if name.startswith("coordinator-")]

    @property
    def address(self) -> str:
        return self.addresses[0]

    def names(self) -> list[str]:
        """All processes, in the order in which they start."""
        return list(self._processes)

    def address_of(self, name: str) -> str:
        self._process(name)
        return f"{HOST}:{self._known.ports[name]}"

    def metrics_address_of(self, name: str) -> str:
        """Where a coordinator or shard server serves its metrics. Valkey has none."""
        self._process(name)
        return f"{HOST}:{self._known.ports[metrics_port_of(name)]}"

    def pid(self, name: str) -> int:
        return self._process(name).pid

    def is_running(self, name: str) -> bool:
        return self._process(name).running

    def exit_code(self, name: str) -> int | None:
        """None while it runs."""
        return self._process(name).exit_code

    def log_path(self, name: str) -> Path:
        self._process(name)
        return self.data / "logs" / f"{name}.log"

    def data_of(self, name: str) -> Path:
        """The folder in which one process keeps what is its own."""
        self._process(name)
        return self.data / name

    # --- its life

    def start(self) -> None:
        """Starts everything and returns when Valkey answers and the registry exists; see wait_ready()."""
        self._folder.lock()
        try:
            self._plan()
            for name in self.names():
                self.start_process(name)
                if name == VALKEY:
                    self._wait_for_valkey()
                    self._initialise()
            if VALKEY not in self._processes:
                self._initialise()
        except BaseException:
            self.kill_all()
            raise

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Returns when every process serves and every coordinator sees all shard servers. Raises Unavailable naming
        what is not ready in time, or at once what has exited."""
        deadline = time.monotonic() + timeout_s
        while problem := self._first_problem():
            if time.monotonic() >= deadline:
                raise Unavailable(f"after {timeout_s:g} s {problem}")
            time.sleep(_READY_POLL_S)

    def start_process(self, name: str, extra_env: Mapping[str, str] | None = None) -> None:
        """Starts one process that does not run; does not wait until it serves."""
        command = Command(
            arguments=self._arguments(name),
            environment={**self._environment, **(extra_env or {})},
            folder=self.data_of(name),
            log_path=self.log_path(name),
        )
        command.folder.mkdir(parents=True, exist_ok=True)
        # Whoever holds the descriptor keeps the folder locked: also processes that outlive this one by a moment.
        self._process(name).start(command, inherited=[self._folder.lock_descriptor])

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to one process; after SIGKILL it is gone on return."""
        self._process(name).signal(number)

    def stop_process(self, name: str, timeout_s: float = 60.0) -> int:
        """Drains one process, kills it after the timeout, and returns its exit code."""
        self._stop_group([self._process(name)], timeout_s)
        code = self._process(name).exit_code
        return 0 if code is None else code

    def stop(self) -> dict[str, int]:
        """Drains everything; the exit codes by name, negated signals for what had to be killed. Idempotent."""
        for prefix, timeout_s in _STOP_ORDER:
            self._stop_group([p for p in self._processes.values() if p.name.startswith(prefix)], timeout_s)
        codes = {name: process.exit_code or 0 for name, process in self._processes.items()}
        self._folder.unlock()
        return codes

    def kill_all(self) -> None:
        """Kills every process at once, as a power cut would, and gives up the folder; start() begins again."""
        for process in self._processes.values():
            process.signal(signal.SIGKILL)
        self._folder.unlock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- how

    @property
    def _known(self) -> ClusterFile:
        if self._file is None:
            raise FailedPrecondition("the local cluster was not started")
        return self._file

    def _process(self, name: str) -> ManagedProcess:
        try:
            return self._processes[name]
        except KeyError as error:
            raise InvalidArgument("name", f"is {name}", f"must be one of {', '.join(self._processes)}") from error

    def _plan(self) -> None:
        """Decides what runs and on which ports, and remembers it before anything starts."""
        before = self._folder.read()
        servers = self._servers or (before.servers if before else 2)
        coordinators = self._coordinators or (before.coordinators if before else 1)
        if before is not None and servers < before.servers:
            raise FailedPrecondition(
                f"servers is {servers}, must be at least {before.servers}: data folder {self.data} holds their replicas"
            )
        names = [f"coordinator-{n}" for n in range(coordinators)]
        measured = names = [f"shard-{n}" for n in range(servers)] + names
        if self._outside_redis_url is None:
            names = [VALKEY, *names]
        self._file = ClusterFile(
            cluster_id=before.cluster_id if before else new_cluster_id(),
            servers=servers,
            coordinators=coordinators,
            initialised=before.initialised if before else False,
            ports=self._ports([*names, *map(metrics_port_of, measured)], before.ports if before else {}),
        )
        self._folder.write(self._file)
        self._folder.write_targets({name: self._file.ports[metrics_port_of(name)] for name in measured})
        self._processes = {name: ManagedProcess(name) for name in names}

    def _ports(self, names: list[str], remembered: Mapping[str, int]) -> dict[str, int]:
        ports: dict[str, int] = {}
        for name in names:
            kind, _, number = name.partition("-")
            if kind == "coordinator" and self._port:
                ports[name] = self._port + int(number)
                if not is_free(ports[name]):
                    raise FailedPrecondition(f"port {ports[name]} for {name} is in use; choose another one with --port")
            else:
                ports[name] = take_port(remembered.get(name), {*ports.values(), *remembered.values()})
        return ports

    def _arguments(self, name: str) -> list[str]:
        port = self._known.ports[name]
        if name == VALKEY:
            return valkey.server_command(self.data_of(name), port)
        program = name.partition("-")[0]  # processes are named after their packages
        return [
            # -P: never a package of the same name in the current folder.
            *(sys.executable, "-P", "-m", program),
            *("--data", str(self.data_of(name))),
            *("--listen", f"{HOST}:{port}"),
            *("--advertise", f"{HOST}:{port}"),
            *("--redis", self.redis_url),
            *("--namespace", self._namespace),
            *("--metrics-listen", self.metrics_address_of(name)),
        ]

    def _wait_for_valkey(self) -> None:
        process, deadline = self._process(VALKEY), time.monotonic() + _VALKEY_LOAD_S
        while not valkey.is_ready(self._known.ports[VALKEY]):
            if not process.running or time.monotonic() >= deadline:
                raise Unavailable(f"valkey does not answer; its log {process.log_path} ends with:\n{process.log_end()}")
            time.sleep(_READY_POLL_S)

    def _initialise(self) -> None:
        """Creates the registry once in the life of the folder: what is missing later was lost and gets recovered."""
        where = (self.redis_url, self._namespace, self._known.cluster_id)
        if not self._known.initialised:
            _run_apart(initialise(*where, self._defaults or Defaults()))
            self._file = msgspec.structs.replace(self._known, initialised=True)
            self._folder.write(self._file)
        elif self._defaults is not None:
            _run_apart(change_defaults(*where, self._defaults))

    def _first_problem(self) -> str:
        """Why the cluster is not ready, or ''."""
        for name, process in self._processes.items():
            if process.exit_code is not None:
                raise Unavailable(
                    f"{name} exited with status {process.exit_code}; its log {process.log_path} ends with:\n{process.log_end()}"
                )
            serving = (
                valkey.is_ready(self._known.ports[name])
                if name == VALKEY
                else readiness.is_serving(self.address_of(name))
            )
            if not serving:
                return f"{name} is not serving; its log is {process.log_path}"
        shard_servers = [self.address_of(name) for name in self.names() if name.startswith("shard-")]
        for address in self.addresses:
            if missing := readiness.what_is_missing(address, shard_servers):
                return f"the coordinator at {address} {missing}"
        return ""

    def _stop_group(self, processes: list[ManagedProcess], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        for process in processes:
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGCONT)  # a stopped process would not see the other one
        for process in processes:
            if not process.wait(deadline):
                process.signal(signal.SIGKILL)


def _run_apart(work: Coroutine[Any, Any, object]) -> None:
    """Runs a coroutine in a thread of its own, because the caller's may run an event loop."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(asyncio.run, work).result()
