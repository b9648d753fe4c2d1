"""Where the film plays: a cluster of real processes in a folder, the clients, and what everybody on it knows.

Guarantees that nothing of the cluster is left, however a film ends: no process, and no file but in a folder of the
caller's own.
"""

import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from kintsugi.demo.checks import Checks
from kintsugi.demo.material import Material, read_standard_library
from kintsugi.errors import KintsugiError
from kintsugi.local.cluster import LocalCluster
from kintsugi.registry.records import Defaults
from kintsugi.sdk.aio import AsyncClient
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.retry import RetryPolicy
from kintsugi.sdk.types import BatchResult

COLLECTION = "stdlib"
SHARDS = 2
REPLICAS = 2
READY_S = 60.0
_CALL_TIMEOUT_S = 30.0
_LAST_WORDS = 5
# Longer than any call: the first failure of a searcher stands, the SDK hides none.
NO_RETRIES = RetryPolicy(first_delay_s=1e6, max_delay_s=1e6)


def open_client(addresses: Sequence[str]) -> Client:
    return Client(addresses, timeout_s=_CALL_TIMEOUT_S)


def open_searcher(addresses: Sequence[str]) -> AsyncClient:
    """A client for a searcher, which does not retry."""
    return AsyncClient(addresses, retry=NO_RETRIES)


def build_cluster(folder: Path, replicas: int) -> LocalCluster:
    defaults = Defaults(shards=SHARDS, replicas=replicas)
    return LocalCluster(folder, servers=SHARDS, coordinators=1, defaults=defaults)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays. The tests put in somebody who breaks a promise, to see that its check fails. `backfill_s`: how long
    re-embedding may take at least, so that one sees it."""

    replicas: int = REPLICAS
    searchers: int = 4
    patience_s: float = 60.0
    backfill_s: float = 10.0
    material: Callable[[Console, Sequence[str]], Material] = read_standard_library
    cluster: Callable[[Path, int], LocalCluster] = build_cluster
    client: Callable[[Sequence[str]], Client] = open_client
    searcher: Callable[[Sequence[str]], AsyncClient] = open_searcher
    before_scene: Callable[[str, "Stage"], None] = lambda _name, _stage: None


@dataclass(slots=True)
class Stage:
    """What the scenes share. `attributes` and `versions` are what the cluster acknowledged last, by id; `token` sees the
    import, and `exact` are the right answers to the questions."""

    console: Console
    checks: Checks
    cast: Cast
    cluster: LocalCluster
    material: Material
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    token: bytes = b""
    exact: BatchResult | None = None

    def client(self) -> Client:
        return self.cast.client(self.cluster.addresses)

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def start(self) -> None:
        started = time.monotonic()
        self.cluster.start()
        self.cluster.wait_ready(READY_S)
        self.say(f"started {', '.join(self.cluster.names())} in {since(started)}")


@contextmanager
def running(stage: Stage) -> Iterator[None]:
    """The cluster runs inside, and nothing of it is left outside, however that is left."""
    try:
        stage.start()
        yield
    except KintsugiError:
        _show_last_words(stage)
        raise
    finally:
        try:
            stage.cluster.stop()
        except BaseException:
            stage.cluster.kill_all()
            raise


def _show_last_words(stage: Stage) -> None:
    """The end of each process' log: the folder is about to go."""
    for name in stage.cluster.names():
        path = stage.cluster.log_path(name)
        if path.exists():
            stage.console.print(f"--- {name}", markup=False)
            for line in path.read_text(errors="replace").splitlines()[-_LAST_WORDS:]:
                stage.console.print(line[:300], markup=False, highlight=False)


@contextmanager
def folder_at(data: Path | None) -> Iterator[Path]:
    """The folder that was asked for, or one that is gone afterwards."""
    if data is not None:
        # At once, whatever takes a while before it is needed.
        data.mkdir(parents=True, exist_ok=True)
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="kintsugi-demo-") as made:
        yield Path(made)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the demo the way Ctrl-C does. Only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def since(started: float) -> str:
    return f"{time.monotonic() - started:.1f} s"
