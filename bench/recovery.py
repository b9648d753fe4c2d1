"""How long a killed shard server is gone: from its start until every query of the set is answered again.

Each round kills a server of the settled cluster, starts it again at once as a supervisor would, and sends one search
after the other without retries. The first round comes right after ingest, when the newest checkpoint is old and the
journal behind it long; the others find a checkpoint that the start before them left.
"""

import asyncio
import time
from dataclasses import dataclass

from bench.cluster import MeasuredCluster
from bench.datasets import Dataset
from bench.statistics import Spread, spread
from kintsugi import AsyncClient
from kintsugi.errors import KintsugiError

_GIVE_UP_S = 300.0
_POLL_S = 0.01
_ATTEMPT_S = 5.0


@dataclass(frozen=True, slots=True)
class RecoveryRound:
    """`journal_records` is how far the newest checkpoint lay behind the documents at the kill. `serving_s`: from the
    start of the process to its first answer, `killed_to_serving_s` from the kill."""

    server: str
    journal_records: int
    serving_s: float
    killed_to_serving_s: float


@dataclass(frozen=True, slots=True)
class Recovery:
    rounds: list[RecoveryRound]
    serving_s: Spread


def measure(cluster: MeasuredCluster, collection: str, dataset: Dataset, rounds: int) -> Recovery:
    servers = [name for name in cluster.local.names() if name.startswith("shard-")]
    measured = []
    for number in range(rounds):
        measured.append(_round(cluster, collection, dataset, servers[number % len(servers)]))
        cluster.pin()
        cluster.settle()
    return Recovery(measured, spread([one.serving_s for one in measured]))


def _round(cluster: MeasuredCluster, collection: str, dataset: Dataset, server: str) -> RecoveryRound:
    behind = max(
        replica.searchable_seq - max((version.checkpoint_seq for version in replica.index_versions), default=0)
        for replica in cluster.replicas(collection)
    )
    killed = time.monotonic()
    cluster.local.kill(server)
    started = time.monotonic()
    cluster.local.start_process(server)
    asyncio.run(_answered(cluster.address, collection, dataset))
    serving = time.monotonic()
    return RecoveryRound(server, behind, serving - started, serving - killed)


async def _answered(address: str, collection: str, dataset: Dataset) -> None:
    """Returns when a search sees all shards. With one replica per shard, none does before the server is back."""
    query = dataset.queries[0]
    deadline = time.monotonic() + _GIVE_UP_S
    async with AsyncClient(address) as client:
        while True:
            try:
                await client.search(collection, query, timeout_s=_ATTEMPT_S)
            except KintsugiError:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_POLL_S)
            else:
                return
