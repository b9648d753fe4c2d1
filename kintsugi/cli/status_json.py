"""The status as a JSON document with a stable schema: docs/status-json.md, docs/status-1.schema.json. Pure.

Within one schema version, fields are added and never removed, renamed or given another meaning.
"""

from datetime import datetime
from typing import Any

from kintsugi.cli.health import judge, lag
from kintsugi.sdk.status import (
    ClusterStatus,
    IndexVersionStatus,
    MachineStatus,
    MemberStatus,
    ReplicaStatus,
    ShardStatus,
)

SCHEMA_VERSION = 1


def document(status: ClusterStatus, at: datetime) -> dict[str, Any]:
    """`at` is when it was asked for."""
    health, problems = judge(status)
    return {
        "schema_version": SCHEMA_VERSION,
        "at": _time(at),
        "health": health.value,
        "problems": [
            {"health": problem.health.value, "subject": problem.subject, "message": problem.message}
            for problem in problems
        ],
        "cluster_id": status.cluster_id,
        "registry": {
            "state": status.registry,
            "message": status.message,
            "incarnation": status.incarnation,
            "revision": status.revision,
        },
        "members": [_member(member) for member in status.members],
        "collections": [
            {
                "name": collection.name,
                "encoding": collection.encoding,
                "encoding_requests": collection.encoding_requests,
                "shards": [_shard(shard) for shard in collection.shards],
            }
            for collection in status.collections
        ],
    }


def _member(member: MemberStatus) -> dict[str, Any]:
    return {
        "id": member.id,
        "role": member.role,
        "address": member.address,
        "alive": member.alive,
        "lifecycle": member.lifecycle or None,
        "resident_bytes": member.resident_bytes or None,
        "version": member.version,
        "machine": _machine(member.machine) if member.machine else None,
    }


def _machine(machine: MachineStatus) -> dict[str, Any]:
    return {
        "clock": _time(machine.clock),
        "open_files": machine.open_files,
        "open_files_limit": machine.open_files_limit or None,
        "address_space_limit_bytes": machine.address_space_limit_bytes or None,
        "memory_limit_bytes": machine.memory_limit_bytes or None,
        "filesystem": machine.filesystem,
        "disk_free_bytes": machine.disk_free_bytes,
        "disk_total_bytes": machine.disk_total_bytes,
    }


def _shard(shard: ShardStatus) -> dict[str, Any]:
    return {
        "shard": shard.shard,
        "log": {
            "state": shard.log_state,
            "epoch": shard.epoch,
            "seq": shard.log_seq or None,
            "bytes": shard.log_bytes or None,
            "message": shard.message,
        },
        "replicas": [_replica(shard, replica) for replica in shard.replicas],
    }


def _replica(shard: ShardStatus, replica: ReplicaStatus) -> dict[str, Any]:
    told = replica.reachable
    return {
        "member": replica.member,
        "state": replica.state,
        "reachable": told,
        "phase": replica.phase if told else None,
        "message": replica.message,
        "durable_seq": replica.durable_seq if told else None,
        "searchable_seq": replica.searchable_seq if told else None,
        "lag": lag(shard, replica),
        "documents": replica.documents if told else None,
        "disk_bytes": replica.disk_bytes if told else None,
        "settled_encoding_requests": replica.settled_encoding_requests if told else None,
        "index_versions": [_index_version(index) for index in replica.index_versions],
    }


def _index_version(index: IndexVersionStatus) -> dict[str, Any]:
    return {
        "version": index.version,
        "model": index.model,
        "encoding": index.encoding,
        "state": index.state,
        "vectors": index.vectors,
        "vectors_wanted": index.vectors_wanted or None,
        "reason": index.reason,
        "code_bytes": index.code_bytes or None,
        "mapped_bytes": index.mapped_bytes,
        "checkpoint_seq": index.checkpoint_seq,
        "live_recall": index.live_recall,
        "live_recall_queries": index.live_recall_queries,
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
