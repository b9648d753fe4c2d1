"""The status of a cluster as frozen values: the same words as `kintsugi.v1.cluster`, which documents every field.

Pure but for reading the protos.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from kintsugi.v1 import cluster_pb2


@dataclass(frozen=True, slots=True)
class IndexVersionStatus:
    """One index version of a replica. `checkpoint_seq` is the position of its last checkpoint on disk; `vectors_wanted`
    what it will hold while it is building; `reason` why it was built or refused; `code_bytes` per vector. `live_recall` is the part of the true best hits that
    `live_recall_queries` live searches found, None before there is one."""

    version: int
    model: str
    encoding: str
    state: str
    vectors: int
    checkpoint_seq: int
    vectors_wanted: int = 0
    reason: str = ""
    code_bytes: float = 0.0
    mapped_bytes: int = 0
    live_recall: float | None = None
    live_recall_queries: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica. What follows `reachable` is not set when its shard server did not answer. While
    `settled_encoding_requests` is below the collection's `encoding_requests`, its index is not as wanted yet."""

    member: str
    state: str
    reachable: bool
    phase: str
    message: str
    durable_seq: int
    searchable_seq: int
    documents: int
    index_versions: tuple[IndexVersionStatus, ...]
    disk_bytes: int
    settled_encoding_requests: int = 0


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard with its log. `message` says what a recovery waits for."""

    shard: int
    log_state: str
    epoch: int
    log_seq: int
    log_bytes: int
    replicas: tuple[ReplicaStatus, ...]
    message: str


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """`encoding`: what its replicas are to have, "auto" for the choice of each; `encoding_requests`: how often one was
    asked for."""

    name: str
    shards: tuple[ShardStatus, ...]
    encoding: str = "auto"
    encoding_requests: int = 0


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """What a machine allows a process. Limits of 0 are no limits; what the system does not tell is 0 or ''."""

    clock: datetime
    open_files_limit: int
    open_files: int
    address_space_limit_bytes: int
    memory_limit_bytes: int
    filesystem: str
    disk_free_bytes: int
    disk_total_bytes: int


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One process. `lifecycle` is '' and `machine` None when it did not answer the coordinator that was asked; other
    coordinators are not asked."""

    id: str
    role: str
    address: str
    alive: bool
    lifecycle: str
    resident_bytes: int
    version: str
    machine: MachineStatus | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster as one coordinator knows it. Writes are taken only while `registry` is "ok"."""

    cluster_id: str
    incarnation: int
    revision: int
    registry: str
    message: str
    members: tuple[MemberStatus, ...]
    collections: tuple[CollectionStatus, ...]


def cluster_status(response: cluster_pb2.GetStatusResponse) -> ClusterStatus:
    return ClusterStatus(
        cluster_id=response.cluster_id,
        incarnation=response.incarnation,
        revision=response.revision,
        registry=response.registry,
        message=response.message,
        members=tuple(_member(member) for member in response.members),
        collections=tuple(
            CollectionStatus(
                name=collection.name,
                shards=tuple(_shard(shard) for shard in collection.shards),
                encoding=collection.encoding,
                encoding_requests=collection.encoding_requests,
            )
            for collection in response.collections
        ),
    )


def _member(member: cluster_pb2.MemberStatus) -> MemberStatus:
    return MemberStatus(
        id=member.id,
        role=member.role,
        address=member.address,
        alive=member.alive,
        lifecycle=member.lifecycle,
        resident_bytes=member.resident_bytes,
        version=member.version,
        machine=machine_values(member.machine) if member.HasField("machine") else None,
    )


def machine_values(machine: cluster_pb2.MachineStatus) -> MachineStatus:
    return MachineStatus(
        clock=machine.clock.ToDatetime(tzinfo=UTC),
        open_files_limit=machine.open_files_limit,
        open_files=machine.open_files,
        address_space_limit_bytes=machine.address_space_limit_bytes,
        memory_limit_bytes=machine.memory_limit_bytes,
        filesystem=machine.filesystem,
        disk_free_bytes=machine.disk_free_bytes,
        disk_total_bytes=machine.disk_total_bytes,
    )


def _shard(shard: cluster_pb2.ShardStatus) -> ShardStatus:
    return ShardStatus(
        shard=shard.shard,
        log_state=shard.log_state,
        epoch=shard.epoch,
        log_seq=shard.log_seq,
        log_bytes=shard.log_bytes,
        replicas=tuple(_replica(replica) for replica in shard.replicas),
        message=shard.message,
    )


def _replica(replica: cluster_pb2.ReplicaStatus) -> ReplicaStatus:
    return ReplicaStatus(
        member=replica.member,
        state=replica.state,
        reachable=replica.reachable,
        phase=replica.phase,
        message=replica.message,
        durable_seq=replica.durable_seq,
        searchable_seq=replica.searchable_seq,
        documents=replica.documents,
        index_versions=tuple(_index_version(index) for index in replica.index_versions),
        disk_bytes=replica.disk_bytes,
        settled_encoding_requests=replica.settled_encoding_requests,
    )


def _index_version(index: cluster_pb2.IndexVersionStatus) -> IndexVersionStatus:
    return IndexVersionStatus(
        version=index.version,
        model=index.model,
        encoding=index.encoding,
        state=index.state,
        vectors=index.vectors,
        checkpoint_seq=index.checkpoint_seq,
        vectors_wanted=index.vectors_wanted,
        reason=index.reason,
        code_bytes=index.code_bytes,
        mapped_bytes=index.mapped_bytes,
        live_recall=index.live_recall if index.HasField("live_recall") else None,
        live_recall_queries=index.live_recall_queries,
    )
