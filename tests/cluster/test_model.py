"""Random operations on a cluster whose processes are killed and restarted, compared with an in-memory oracle.

KINTSUGI_TEST_SEED repeats a run's operations and faults; when exactly a fault strikes depends on the machine.
"""

import asyncio
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from harness.model import memory
from harness.model.content import Shape
from harness.model.worker import PATIENCE_S, Worker

from kintsugi.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

SHAPES = (
    # Large enough for a calibrated graph index.
    Shape("cosine-f32", "cosine", "f32", 24, 1, 2, pool=4000, seeded=2500, share=0.4,
          encodings=("auto", "i8", "f16", "binary", "recurrent-2")),
    Shape("dot-f16", "dot", "f16", 16, 2, 2, pool=300, seeded=0, share=0.2, encodings=("auto", "i8", "e4m3", "binary")),
    Shape("l2-f32", "l2", "f32", 33, 3, 1, pool=600, seeded=200, share=0.2, encodings=("auto", "i8", "bf16", "i8+pca-24")),
    Shape("cosine-f16", "cosine", "f16", 8, 2, 1, pool=60, seeded=0, share=0.2, encodings=("auto", "i8", "binary")),
)  # fmt: skip
WHOLE = "whole cluster"
FAULTS = tuple(
    (name, number)
    for name in ("shard-0", "shard-1", "coordinator-0", "coordinator-1", "valkey", WHOLE)
    for number in (signal.SIGKILL, signal.SIGTERM)
)
# The second one: a process that had just been started and did not listen for signals yet.
DRAINED = {0, -signal.SIGTERM}
RECALL = 0.99
# The last part of the operations meets no fault: what servers hold in memory then is due to the churn alone.
CALM_PART = 0.2
# Of what a server holds that has just loaded the same documents and has hardly been used. It levels off at 1.4.
MEMORY_RATIO = 2.0


class Progress:
    """How many operations are done, across threads."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._operations = 0
        self._over = False

    def add(self, operations: int) -> None:
        with self._news:
            self._operations += operations
            self._news.notify_all()

    def finish(self) -> None:
        with self._news:
            self._over = True
            self._news.notify_all()

    def reaches(self, operations: int, timeout_s: float) -> bool:
        """Waits until so many are done; False when the workers ended before."""
        with self._news:
            if not self._news.wait_for(lambda: self._over or self._operations >= operations, timeout_s):
                raise TimeoutError(f"{self._operations} operations done after {timeout_s} s, {operations} wanted")
            return not self._over


class Crew:
    """All workers on one event loop in a thread, so that the test's thread can kill and restart processes."""

    def __init__(self, addresses: list[str], seed: str, operations: int) -> None:
        self.progress = Progress()
        self.calm = threading.Event()
        self._make = lambda: [Worker(shape, addresses, seed, self.progress.add, self.calm.is_set) for shape in SHAPES]
        self._operations = operations
        self.workers: list[Worker] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 -- raised again in the test's thread
            self._failure = error
        finally:
            self.progress.finish()

    async def _run(self) -> None:
        self.workers = self._make()
        async with asyncio.TaskGroup() as tasks:
            for worker in self.workers:
                tasks.create_task(worker.run(round(worker.shape.share * self._operations)))

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"the workers did not end within {timeout_s} s"
        if self._failure is not None:
            raise self._failure

    def recalls(self) -> dict[str, list[float]]:
        """Of all workers' approximate searches, by the encoding that was wanted."""
        found: dict[str, list[float]] = {}
        for worker in self.workers:
            for encoding, values in worker.recalls.items():
                found.setdefault(encoding, []).extend(values)
        return found

    async def check_everything(self) -> None:
        for worker in self.workers:
            await worker.check_everything()


def strike(cluster: LocalCluster, name: str, number: signal.Signals) -> None:
    """Ends processes and starts them again."""
    if name == WHOLE:
        if number is signal.SIGKILL:
            cluster.kill_all()
            cluster.stop()
        else:
            codes = cluster.stop()
            assert set(codes.values()) <= DRAINED, f"drained processes ended with {codes}"
        cluster.start()
        return
    if number is signal.SIGKILL:
        cluster.kill(name)
    else:
        assert cluster.stop_process(name) in DRAINED, f"{name} did not drain; its log is {cluster.log_path(name)}"
    cluster.start_process(name)


def strike_by_chance(cluster: LocalCluster, crew: Crew, chance: random.Random, operations: int, faults: int) -> None:
    """Lets faults happen while the crew works; nothing is wrong with the cluster any more when this returns."""
    started = time.monotonic()
    plan = [fault for _ in range(-(-faults // len(FAULTS))) for fault in chance.sample(FAULTS, len(FAULTS))][:faults]
    moments = sorted(chance.randrange(int(operations * (1 - CALM_PART))) for _ in plan)
    for moment, (name, number) in zip(moments, plan, strict=True):
        if not crew.progress.reaches(moment, 2 * PATIENCE_S):
            break
        print(f"{time.monotonic() - started:6.1f} s, {moment} operations: {number.name} {name}", flush=True)
        strike(cluster, name, number)
        if chance.random() < 0.7:  # otherwise the next fault may strike before this one is overcome
            cluster.wait_ready()
    cluster.wait_ready()


def run_model(new_cluster: Callable[..., LocalCluster], operations: int, faults: int) -> None:
    seed = os.environ.get("KINTSUGI_TEST_SEED") or secrets.token_hex(4)
    print(f"KINTSUGI_TEST_SEED={seed}")
    cluster = new_cluster(servers=2, coordinators=2)
    started = time.monotonic()
    crew = Crew(cluster.addresses, seed, operations)
    strike_by_chance(cluster, crew, random.Random(f"{seed} faults"), operations, faults)
    crew.calm.set()
    crew.join(timeout_s=3 * 3600)
    print(f"{time.monotonic() - started:6.1f} s: {operations} operations done, {faults} faults")
    asyncio.run(memory.at_rest(cluster))
    churned = memory.anonymous_bytes(cluster)
    strike(cluster, WHOLE, signal.SIGTERM)
    cluster.wait_ready()
    asyncio.run(crew.check_everything())
    assert_bounded(churned, memory.anonymous_bytes(cluster))
    recalls = crew.recalls()
    for encoding, values in recalls.items():
        print(f"recall {np.mean(values):.4f} over {len(values)} approximate searches, {encoding} wanted")
    assert np.mean(np.concatenate(list(recalls.values()))) >= RECALL
    print(f"{time.monotonic() - started:6.1f} s in all")


def assert_bounded(churned: dict[str, int], fresh: dict[str, int]) -> None:
    print(f"anonymous memory: {churned} after the churn, {fresh} after a restart")
    for name, size in churned.items():
        assert size <= MEMORY_RATIO * fresh[name], f"{name} holds {size} anonymous bytes, {fresh[name]} when fresh"


@pytest.mark.timeout(280)
def test_the_cluster_equals_an_oracle_through_random_restarts(new_cluster: Callable[..., LocalCluster]):
    """20,000 operations and each kind of fault once: no difference."""
    run_model(new_cluster, operations=20_000, faults=len(FAULTS))


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_the_cluster_equals_an_oracle_for_a_long_time(new_cluster: Callable[..., LocalCluster]):
    """500,000 operations and each kind of fault 25 times: no difference."""
    run_model(new_cluster, operations=500_000, faults=25 * len(FAULTS))
