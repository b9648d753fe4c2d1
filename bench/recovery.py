"""How long a killed shard server is gone: from its start until every query is answered again by all shards.

Each round kills a server, starts it again at once as a supervisor would, and sends one search after the other without
retries. In every second round documents were written again right before the kill, so that the newest checkpoint is old
and the index has the journal behind it to catch up with. It serves only then: no search misses what was found before.
"""

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from bench.cluster import MeasuredCluster
from bench.datasets import Dataset
from bench.statistics import Spread, recall, spread
from kintsugi import AsyncClient, Client
from kintsugi.errors import KintsugiError

_GIVE_UP_S = 300.0
_POLL_S = 0.01
_ATTEMPT_S = 5.0
_BATCH = 100
# Documents, over all shards, that the journal holds beyond the newest checkpoint in every second round.
_WRITTEN_AGAIN = 40_000


@dataclass(frozen=True, slots=True)
class RecoveryRound:
    """`journal_records`: how far the newest checkpoint lay behind at the kill. `serving_s`: from the start of the
    process until searches see all documents, `caught_up_s` until its index holds all that was ever written,
    `killed_to_serving_s` from the kill. `recall` is that of the index after it."""

    server: str
    journal_records: int
    serving_s: float
    caught_up_s: float
    killed_to_serving_s: float
    recall: float


@dataclass(frozen=True, slots=True)
class Recovery:
    rounds: list[RecoveryRound]
    serving_s: Spread


def measure(cluster: MeasuredCluster, collection: str, dataset: Dataset, rounds: int) -> Recovery:
    servers = [name for name in cluster.local.names() if name.startswith("shard-")]
    measured = []
    for number in range(rounds):
        cluster.settle()
        if number % 2:
            _write_again(cluster, collection, dataset)
        measured.append(_round(cluster, collection, dataset, servers[number % len(servers)]))
        cluster.pin()
    return Recovery(measured, spread([one.serving_s for one in measured]))


def _write_again(cluster: MeasuredCluster, collection: str, dataset: Dataset) -> None:
    count = min(_WRITTEN_AGAIN, len(dataset.vectors))
    with Client(cluster.address) as client:
        client.bulk_upsert(
            collection,
            np.arange(count, dtype=np.uint64),
            dataset.vectors[:count],
            acknowledgement="searchable",
            progress=False,
        )


def _round(cluster: MeasuredCluster, collection: str, dataset: Dataset, server: str) -> RecoveryRound:
    before = cluster.replicas(collection)
    written = {replica.member: replica.searchable_seq for replica in before}
    behind = max(
        replica.searchable_seq - max((version.checkpoint_seq for version in replica.index_versions), default=0)
        for replica in before
    )
    killed = time.monotonic()
    cluster.local.kill(server)
    started = time.monotonic()
    cluster.local.start_process(server)
    asyncio.run(_answered(cluster.address, collection, dataset))
    serving = time.monotonic()
    while any(replica.searchable_seq < written[replica.member] for replica in cluster.replicas(collection)):
        if time.monotonic() >= started + _GIVE_UP_S:
            raise TimeoutError(f"the index of {server} has not caught up after {_GIVE_UP_S:g} s")
        time.sleep(_POLL_S)
    caught_up = time.monotonic()
    reached = _recall(cluster, collection, dataset)
    return RecoveryRound(server, behind, serving - started, caught_up - started, serving - killed, reached)


def _recall(cluster: MeasuredCluster, collection: str, dataset: Dataset) -> float:
    k = dataset.truth.shape[1]
    with Client(cluster.address) as client:
        found = [
            client.search_batch(collection, dataset.queries[start : start + _BATCH], k).ids.astype(np.int64)
            for start in range(0, len(dataset.queries), _BATCH)
        ]
    return recall(np.concatenate(found), dataset.truth)


async def _answered(address: str, collection: str, dataset: Dataset) -> None:
    """Returns when a search sees all documents. With one replica per shard, none does before the server is back."""
    query = dataset.queries[0]
    deadline = time.monotonic() + _GIVE_UP_S
    async with AsyncClient(address) as client:
        while True:
            try:
                coverage = (await client.search(collection, query, timeout_s=_ATTEMPT_S)).coverage
            except KintsugiError:
                if time.monotonic() >= deadline:
                    raise
            else:
                if coverage.complete and coverage.documents_covered == len(dataset.vectors):
                    return
            await asyncio.sleep(_POLL_S)
