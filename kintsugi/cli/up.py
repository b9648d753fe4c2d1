"""The command that runs a whole cluster in the foreground until Ctrl-C."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from kintsugi.errors import KintsugiError
from kintsugi.limits import MAX_REPLICAS, MAX_SHARDS
from kintsugi.local.cluster import LocalCluster
from kintsugi.local.folder import TARGETS_FILE
from kintsugi.local.supervisor import Supervisor
from kintsugi.registry.records import Defaults

_EXIT_KILLED = 130
_POLL_S = 0.2


@click.command(short_help="Run a cluster on this machine until Ctrl-C.")
@click.option(
    "--shards", type=click.IntRange(1, MAX_SHARDS), help="Shards of a collection that does not say.  [default: 1]"
)
@click.option(
    "--replicas", type=click.IntRange(1, MAX_REPLICAS), help="Replicas of a collection that does not say.  [default: 1]"
)
@click.option(
    "--servers",
    type=click.IntRange(1, 64),
    help="Shard servers.  [default: as before, or enough for the replicas and up to one per core for the shards]",
)
@click.option("--coordinators", type=click.IntRange(1, 64), help="Coordinators.  [default: as before, or 1]")
@click.option(
    "--redis", metavar="URL", envvar="KINTSUGI_REDIS", help="Use this Redis or Valkey instead of a private one."
)
@click.option(
    "--data",
    default="kintsugi-data",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that survives restarts.",
)
@click.option(
    "--port",
    default=7700,
    show_default=True,
    type=click.IntRange(0, 65000),
    help="Port of the first coordinator, the others follow; 0 takes free ones.",
)
@click.option(
    "--ready-timeout",
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(1),
    help="How long the start may take.",
)
def up(data: Path, redis: str | None, port: int, ready_timeout: float, **counts: int | None) -> int:
    """Run a cluster of real processes on this machine, restarting what crashes.

    Ctrl-C drains and stops it, a second Ctrl-C kills it. The data folder remembers everything for the next start.
    """
    cluster = LocalCluster(
        data, servers=_servers(data, counts), coordinators=counts["coordinators"], redis_url=redis, port=port,
        defaults=_defaults(counts),
    )  # fmt: skip
    with _Interruption.watching() as interruption:
        return _run(cluster, interruption, ready_timeout)


def _defaults(counts: dict[str, int | None]) -> Defaults | None:
    if counts["shards"] is None and counts["replicas"] is None:
        return None
    return Defaults(shards=counts["shards"] or 1, replicas=counts["replicas"] or 1)


def _servers(data: Path, counts: dict[str, int | None]) -> int | None:
    """None lets the folder decide."""
    if counts["servers"] is not None or (data / "cluster.json").exists():
        return counts["servers"]
    return max(counts["replicas"] or 1, min(counts["shards"] or 1, os.cpu_count() or 1))


class _Interruption:
    """SIGINT and SIGTERM: at first a flag for the loop to see; while something blocks, an exception."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.raises = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.asked.set()
        if self.raises:
            raise KeyboardInterrupt

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Inside, a signal raises KeyboardInterrupt."""
        self.raises = True
        try:
            yield
        finally:
            self.raises = False

    @classmethod
    @contextmanager
    def watching(cls) -> Iterator["_Interruption"]:
        interruption = cls()
        before = {number: signal.signal(number, interruption) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield interruption
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _run(cluster: LocalCluster, interruption: _Interruption, ready_timeout_s: float) -> int:
    try:
        with interruption.breaking():
            cluster.start()
            cluster.wait_ready(ready_timeout_s)
    except KeyboardInterrupt:
        click.echo("interrupted while starting")
        return _stop(cluster, interruption)
    except KintsugiError:
        _stop(cluster, interruption)
        raise
    _greet(cluster)
    supervisor = Supervisor(cluster, report=lambda sentence: click.echo(sentence, err=True))
    while not interruption.asked.wait(_POLL_S):
        supervisor.poll()
    click.echo("draining, Ctrl-C again kills")
    return _stop(cluster, interruption)


def _stop(cluster: LocalCluster, interruption: _Interruption) -> int:
    try:
        with interruption.breaking():
            codes = cluster.stop()
    except KeyboardInterrupt:
        cluster.kill_all()
        click.echo("killed")
        return _EXIT_KILLED
    failed = {name: code for name, code in codes.items() if code}
    for name, code in failed.items():
        click.echo(f"{name} exited with status {code}, see {cluster.log_path(name)}", err=True)
    if not failed:
        click.echo("stopped")
    return 1 if failed else 0


def _greet(cluster: LocalCluster) -> None:
    click.echo(f"cluster {cluster.cluster_id} is ready")
    for address in cluster.addresses:
        click.echo(f"  coordinator  {address}")
    click.echo(f"  data         {cluster.data}")
    click.echo(f"  logs         {cluster.data / 'logs'}")
    click.echo(f"  metrics      {cluster.data / TARGETS_FILE} lists where")
    click.echo("Ctrl-C stops it.")
