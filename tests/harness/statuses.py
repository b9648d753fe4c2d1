"""Statuses for tests: a healthy one, to be changed with dataclasses.replace."""

from dataclasses import replace
from datetime import UTC, datetime

from kintsugi.sdk.status import (
    ClusterStatus,
    CollectionStatus,
    IndexVersionStatus,
    MachineStatus,
    MemberStatus,
    ReplicaStatus,
    ShardStatus,
)

MACHINE = MachineStatus(
    clock=datetime(2026, 1, 2, tzinfo=UTC), open_files_limit=65536, open_files=50, address_space_limit_bytes=0,
    memory_limit_bytes=2**32, filesystem="ext4", disk_free_bytes=2**40, disk_total_bytes=2**41,
)  # fmt: skip


def member(name, role="shard", **changes):
    made = MemberStatus(name, role, f"{name}:1", True, "SERVING", 2**27, "0.1.0", MACHINE)
    return replace(made, **changes)


def replica(name, **changes):
    index = IndexVersionStatus(1, "m", "i8", "serving", 90, 50, live_recall=0.9876, live_recall_queries=20)
    made = ReplicaStatus(
        member=name, state="in-sync", reachable=True, phase="serving", message="", durable_seq=100, searchable_seq=99,
        documents=90, index_versions=(index,), disk_bytes=4096,
    )  # fmt: skip
    return replace(made, **changes)


def silent(name, state="in-sync"):
    """As a coordinator tells of a replica whose server does not answer."""
    return ReplicaStatus(name, state, False, "", "", 0, 0, 0, (), 0)


def shard(*replicas, **changes):
    made = ShardStatus(0, "open", 1, 100, 2**20, replicas or (replica("s0"), replica("s1")), "")
    return replace(made, **changes)


def status(*shards, **changes):
    made = ClusterStatus(
        cluster_id="c", incarnation=1, revision=9, registry="ok", message="",
        members=(member("c0", "coordinator"), member("s0"), member("s1")),
        collections=(CollectionStatus("books", shards or (shard(),)),),
    )  # fmt: skip
    return replace(made, **changes)
