"""The cluster under measurement: its processes, its collection, its memory.

Shard server n is pinned to the n-th core, like the raw engine n; coordinators, Valkey and the client run where the
kernel puts them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.datasets import Dataset
from bench.processes import Memory, core_of, memory, pin, wait_idle
from kintsugi import Client, Model
from kintsugi.local.cluster import LocalCluster
from kintsugi.sdk.status import ReplicaStatus

_READY_S = 120.0
_MODEL = "bench"


class MeasuredCluster:
    """A started cluster with at most one collection."""

    def __init__(self, local: LocalCluster, shards: int, replicas: int, *, pinned: bool) -> None:
        self.local = local
        self._shards = shards
        self._replicas = replicas
        self._pinned = pinned

    @property
    def address(self) -> str:
        return self.local.address

    @property
    def pids(self) -> dict[str, int]:
        return {name: self.local.pid(name) for name in self.local.names()}

    def create(self, name: str, dataset: Dataset, encoding: str = "auto") -> None:
        with Client(self.address) as client:
            client.create_collection(
                name,
                Model(_MODEL, dataset.vectors.shape[1]),
                metric=dataset.metric.value,
                shards=self._shards,
                replicas=self._replicas,
                encoding=encoding,
            )

    def fill(self, name: str, dataset: Dataset, encoding: str = "auto") -> None:
        """Creates the collection, and returns when searches find all vectors and nothing is built any more."""
        self.create(name, dataset, encoding)
        self.pin()
        with Client(self.address) as client:
            numbers = np.arange(len(dataset.vectors), dtype=np.uint64)
            client.bulk_upsert(name, numbers, dataset.vectors, acknowledgement="searchable", progress=False)
        self.settle()

    def delete(self, name: str) -> None:
        with Client(self.address) as client:
            client.delete_collection(name)

    def restart(self, names: Sequence[str], environment: Mapping[str, str]) -> None:
        """Stops processes and starts them with more in their environment; returns when everything serves."""
        for name in names:
            self.local.stop_process(name)
        for name in names:
            self.local.start_process(name, environment)
        self.local.wait_ready(_READY_S)
        self.pin()

    def pin(self) -> None:
        """Again after a restart; threads made later inherit."""
        if not self._pinned:
            return
        for name in self.local.names():
            kind, _, number = name.partition("-")
            if kind == "shard":
                pin(self.local.pid(name), core_of(int(number)))

    def settle(self) -> float:
        """Waits until the shard servers have nothing left to do, and returns for how long."""
        return wait_idle({name: pid for name, pid in self.pids.items() if name.startswith("shard-")})

    def memory(self) -> dict[str, Memory]:
        return {name: memory(pid) for name, pid in self.pids.items()}

    def replicas(self, collection: str) -> list[ReplicaStatus]:
        with Client(self.address) as client:
            (status,) = client.status(collection).collections
        return [replica for shard in status.shards for replica in shard.replicas]


@contextmanager
def started(folder: Path, shards: int, replicas: int, coordinators: int, *, pinned: bool) -> Iterator[MeasuredCluster]:
    """One shard server per shard, or more when that many replicas need them."""
    with LocalCluster(folder, servers=max(shards, replicas), coordinators=coordinators) as local:
        local.wait_ready(_READY_S)
        cluster = MeasuredCluster(local, shards, replicas, pinned=pinned)
        cluster.pin()
        yield cluster
