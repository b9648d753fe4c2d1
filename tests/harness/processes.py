"""Damage to the processes of a local cluster, from tests that run in an event loop."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator, Sequence

from harness.waiting import POLL_S, until
from kintsugi.cancelling import end
from kintsugi.local.cluster import LocalCluster

# Checkpoints and trimming happen within the seconds that a test lasts.
EAGER = {"KINTSUGI_CHECKPOINT_EVERY_CHANGES": "100", "KINTSUGI_CHECKPOINT_EVERY_S": "0.5"}
# Replicas stay in sync however long they are away: what recovery must wait for then does not depend on time.
PATIENT = {**EAGER, "KINTSUGI_OUT_OF_SYNC_AFTER_S": "3600"}


async def restart(cluster: LocalCluster, name: str) -> None:
    """Starts a process that is gone, and waits until the whole cluster serves."""
    cluster.start_process(name)
    await ready(cluster)


async def ready(cluster: LocalCluster) -> None:
    await asyncio.to_thread(cluster.wait_ready)


async def has_died(cluster: LocalCluster, name: str) -> None:
    """Waits until a process has been killed by its failpoint."""
    await until(lambda: cluster.exit_code(name) is not None, f"{name} dies")
    assert cluster.exit_code(name) == -signal.SIGKILL


async def rearm(cluster: LocalCluster, name: str, failpoints: str) -> None:
    """Restarts a process with failpoints; it serves when this returns."""
    cluster.stop_process(name)
    cluster.start_process(name, {"KINTSUGI_FAILPOINTS": failpoints})
    await ready(cluster)


@contextlib.contextmanager
def frozen(cluster: LocalCluster, names: Sequence[str]) -> Iterator[None]:
    """The processes stand still inside the block."""
    for name in names:
        cluster.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            if cluster.is_running(name):
                cluster.kill(name, signal.SIGCONT)


@contextlib.asynccontextmanager
async def reviving(cluster: LocalCluster, names: Sequence[str]) -> AsyncIterator[list[str]]:
    """Starts processes, without failpoints, whenever they have died inside the block. Yields the names of those."""
    revived: list[str] = []

    async def revive() -> None:
        while True:
            for name in names:
                if cluster.exit_code(name) is not None:
                    cluster.start_process(name)
                    revived.append(name)
            await asyncio.sleep(POLL_S)

    task = asyncio.create_task(revive())
    try:
        yield revived
    finally:
        await end((task,))
