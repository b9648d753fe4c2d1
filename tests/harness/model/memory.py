"""What is left of a churn: how far a cluster is from rest, and what its shard servers hold in memory.

At rest, no index has so many tombstones that it is due to be built anew. Anonymous memory is what a process has asked for and
cannot be dropped: neither pages of its database nor of memory-mapped codes. Linux only.
"""

import urllib.request
from collections import defaultdict
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from harness.verdict import unsettled
from harness.waiting import PATIENCE_S, until_empty
from kintsugi import AsyncClient, KintsugiError
from kintsugi.local.cluster import LocalCluster
from kintsugi.sdk.rollout import rollout
from kintsugi.sdk.status import ClusterStatus

# An index is built anew from so many tombstones on, and from such a part of its slots.
_TOMBSTONES, _TOMBSTONE_PART = 1000, 0.3

_VECTORS, _SLOTS_LOST = "kintsugi_index_vectors", "kintsugi_index_tombstones"
_BUILDING = "kintsugi_index_building"


def servers(cluster: LocalCluster) -> list[str]:
    return [name for name in cluster.names() if name.startswith("shard")]


async def at_rest(cluster: LocalCluster, timeout_s: float = PATIENCE_S) -> None:
    """Waits until every replica has followed its log, serves what encoding is wanted, and is not worn out."""
    async with AsyncClient(cluster.addresses) as client:

        async def problem() -> str:
            try:
                status = await client.status()
            except KintsugiError as error:
                return str(error)
            return unsettled(status) or _unfinished(status) or _worn_out(cluster)

        await until_empty(problem, timeout_s)


def anonymous_bytes(cluster: LocalCluster) -> dict[str, int]:
    """By shard server."""
    found = {}
    for name in servers(cluster):
        status = Path(f"/proc/{cluster.pid(name)}/status").read_text(encoding="ascii")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        found[name] = int(fields["RssAnon"].split()[0]) * 1024
    return found


def _unfinished(status: ClusterStatus) -> str:
    for collection in status.collections:
        told = rollout(status, collection.name)
        if told is None or not told.done:
            return str(told)
    return ""


def _worn_out(cluster: LocalCluster) -> str:
    for name in servers(cluster):
        for replica, index in _indexes(cluster, name).items():
            vectors, lost = index[_VECTORS], index[_SLOTS_LOST]
            if index[_BUILDING] or lost >= max(_TOMBSTONES, _TOMBSTONE_PART * (vectors + lost)):
                return f"{name} {replica}: {index}"
    return ""


def _indexes(cluster: LocalCluster, name: str) -> dict[tuple[str, str], dict[str, float]]:
    """What a shard server tells of its indexes, by collection and shard."""
    with urllib.request.urlopen(f"http://{cluster.metrics_address_of(name)}/metrics") as response:
        exposition = response.read().decode()
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(exposition):
        if family.name in (_VECTORS, _SLOTS_LOST, _BUILDING):
            for sample in family.samples:
                found[sample.labels["collection"], sample.labels["shard"]][family.name] = sample.value
    return found
