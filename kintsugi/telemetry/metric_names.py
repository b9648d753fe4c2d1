"""The catalogue of metrics: name, kind, meaning, labels, and which processes have it. docs/telemetry.md is made from it.

Only declares. Hot paths make their instrument from a declaration (metrics.py); whatever a process can tell when it is
asked, it tells at the scrape (StateCollector).
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class On(StrEnum):
    """The processes that have a metric."""

    EVERY = "every process"
    COORDINATOR = "coordinator"
    SHARD = "shard server"


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Kind
    on: On
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


CATALOGUE: list[Metric] = []

# From the cost of an empty call to the longest deadline anybody should set.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGE_SECONDS = (0.0001, 0.00025, *_SECONDS)
_LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_MANY = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0)
_REPLICA = ("collection", "shard")


def _declared(metric: Metric) -> Metric:
    CATALOGUE.append(metric)
    return metric


def _counter(on: On, name: str, meaning: str, *labels: str) -> Metric:
    return _declared(Metric(name, Kind.COUNTER, on, meaning, labels))


def _gauge(on: On, name: str, meaning: str, *labels: str) -> Metric:
    return _declared(Metric(name, Kind.GAUGE, on, meaning, labels))


def _histogram(on: On, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return _declared(Metric(name, Kind.HISTOGRAM, on, meaning, labels, buckets))


# Every process.

RPC_SECONDS = _histogram(
    On.EVERY,
    "kintsugi_rpc_seconds",
    "gRPC calls that ended, and how long they took; a stream counts once, with its whole life",
    _SECONDS,
    "method",
    "code",
)
LOOP_LAG_SECONDS = _histogram(
    On.EVERY,
    "kintsugi_event_loop_lag_seconds",
    "how late the event loop woke somebody who had asked to be woken; looked at four times a second",
    _SECONDS,
)
RESIDENT_BYTES = _gauge(On.EVERY, "kintsugi_process_resident_bytes", "memory that the process holds")
CPU_SECONDS = _counter(On.EVERY, "kintsugi_process_cpu_seconds_total", "processor time that the process took")
START_TIME = _gauge(On.EVERY, "kintsugi_process_start_time_seconds", "when the process started, in Unix time")
INFO = _gauge(On.EVERY, "kintsugi_info", "1; its labels say which process this is", "role", "member", "version")
LIFECYCLE = _gauge(On.EVERY, "kintsugi_lifecycle", "1 for the present state of the process, 0 for the others", "state")
REGISTRY_HEALTH = _gauge(
    On.EVERY,
    "kintsugi_registry_health",
    "1 for what the registry in Redis is to this process, 0 for the others",
    "health",
)
REGISTRY_INCARNATION = _gauge(
    On.EVERY, "kintsugi_registry_incarnation", "incarnation of the known registry: 1 and one per restoration"
)
REGISTRY_REVISION = _gauge(On.EVERY, "kintsugi_registry_revision", "revision of the known registry, 0 for none")
SHARDS_RECOVERING = _gauge(
    On.EVERY, "kintsugi_shards_recovering", "shards of the known registry whose log is being rebuilt"
)
REPLICAS = _gauge(On.EVERY, "kintsugi_replicas", "replicas in the known registry, by their state", "state")

# Coordinator: reads.

ADMITTED_QUERIES = _counter(On.COORDINATOR, "kintsugi_admitted_queries_total", "queries and other reads that were run")
RUNNING_QUERIES = _gauge(On.COORDINATOR, "kintsugi_admission_running_queries", "queries that run now")
WAITING_QUERIES = _gauge(On.COORDINATOR, "kintsugi_admission_waiting_queries", "queries that wait to be admitted")
ADMISSION_REFUSALS = _counter(
    On.COORDINATOR, "kintsugi_admission_refusals_total", "reads sent away at once with RESOURCE_EXHAUSTED"
)
MESSAGE_QUERIES = _histogram(
    On.COORDINATOR, "kintsugi_message_queries", "queries that travelled together to one replica", _COUNTS
)
SHARD_FAILURES = _counter(
    On.COORDINATOR,
    "kintsugi_fanout_failures_total",
    "times that no replica of a shard gave a read its answer, by the status of the failure",
    "code",
)
FANOUT_RETRIES = _counter(
    On.COORDINATOR, "kintsugi_fanout_retries_total", "times that another replica was asked because one failed"
)
SECOND_TRIES = _counter(
    On.COORDINATOR, "kintsugi_fanout_second_tries_total", "times that another replica was asked because one was slow"
)
REPLANS = _counter(
    On.COORDINATOR, "kintsugi_fanout_replans_total", "reads that asked some shards again on a newer registry"
)
PARTIAL_RESPONSES = _counter(
    On.COORDINATOR, "kintsugi_partial_responses_total", "searches answered without all shards, as their callers allow"
)

# Coordinator: writes.

GROUP_DOCUMENTS = _histogram(
    On.COORDINATOR, "kintsugi_write_group_documents", "documents appended to a log at once", _COUNTS
)
APPEND_SECONDS = _histogram(
    On.COORDINATOR, "kintsugi_write_append_seconds", "how long the log took to append a group", _SECONDS
)
ACKNOWLEDGEMENT_SECONDS = _histogram(
    On.COORDINATOR,
    "kintsugi_write_acknowledgement_seconds",
    "from the beginning of one shard's part of a write to its acknowledgement, by the level that was asked for",
    _SECONDS,
    "level",
)
PENDING_WRITE_BYTES = _gauge(On.COORDINATOR, "kintsugi_write_pending_bytes", "writes that wait for a log or are in it")

# Shard server: replicas.

REPLICA_PHASE = _gauge(
    On.SHARD, "kintsugi_replica_phase", "1 for the present phase of a replica, 0 for the others", *_REPLICA, "phase"
)
DURABLE_SEQ = _gauge(On.SHARD, "kintsugi_replica_durable_seq", "last sequence number synced to disk", *_REPLICA)
SEARCHABLE_SEQ = _gauge(
    On.SHARD, "kintsugi_replica_searchable_seq", "last sequence number that searches see", *_REPLICA
)
DOCUMENTS = _gauge(On.SHARD, "kintsugi_replica_documents", "documents of a replica", *_REPLICA)
DISK_BYTES = _gauge(On.SHARD, "kintsugi_replica_disk_bytes", "size of the database file of a replica", *_REPLICA)
COLUMN_BYTES = _gauge(
    On.SHARD,
    "kintsugi_replica_column_bytes",
    "memory of the number columns that filters have used, bounded per replica",
    *_REPLICA,
)
REPLAY_LAG = _gauge(
    On.SHARD,
    "kintsugi_replay_lag_records",
    "records of the log that the replica does not hold, as of its last report to the log",
    *_REPLICA,
)
APPLIED_AGO = _gauge(
    On.SHARD,
    "kintsugi_replay_last_applied_seconds",
    "seconds since the replica last applied something, or was opened; an alarm only together with a lag",
    *_REPLICA,
)
LOG_BYTES = _gauge(
    On.SHARD,
    "kintsugi_log_bytes",
    "bytes that the log keeps in Redis, as of the replica's last report to it",
    *_REPLICA,
)
REPLAYED_RECORDS = _counter(On.SHARD, "kintsugi_replay_records_total", "records applied by replay")
APPLY_SECONDS = _histogram(
    On.SHARD, "kintsugi_replay_apply_seconds", "how long one synced transaction of replay took", _SECONDS
)
RECOVERIES_WAITING = _gauge(
    On.SHARD, "kintsugi_recoveries_waiting", "recoveries that this server tried and that wait for something"
)
RECOVERIES = _counter(On.SHARD, "kintsugi_recoveries_total", "logs that this server rebuilt")

# Shard server: indexes.

INDEX_VECTORS = _gauge(On.SHARD, "kintsugi_index_vectors", "vectors in the serving index", *_REPLICA)
INDEX_TOMBSTONES = _gauge(
    On.SHARD, "kintsugi_index_tombstones", "slots of removed vectors in the serving index", *_REPLICA
)
INDEX_MEMORY_BYTES = _gauge(
    On.SHARD, "kintsugi_index_memory_bytes", "memory of the graph and the codes of the serving index", *_REPLICA
)
INDEX_MAPPED_BYTES = _gauge(
    On.SHARD,
    "kintsugi_index_mapped_bytes",
    "disk of the memory-mapped codes and vectors of the serving index, which the kernel may drop from memory",
    *_REPLICA,
)
INDEX_VERSION = _gauge(
    On.SHARD, "kintsugi_index_version", "number of the serving index version, by its encoding", *_REPLICA, "encoding"
)
INDEX_BUILDING = _gauge(On.SHARD, "kintsugi_index_building", "1 while another version is being built", *_REPLICA)
INDEX_BUILDS = _counter(
    On.SHARD,
    "kintsugi_index_builds_total",
    "index versions that were built: served, refused because they find less, or abandoned because another one is wanted",
    "outcome",
)
INDEX_BUILD_SECONDS = _histogram(
    On.SHARD, "kintsugi_index_build_seconds", "how long an index version was built, with its rests", _LONG_SECONDS
)
CHECKPOINT_SEQ = _gauge(
    On.SHARD, "kintsugi_index_checkpoint_seq", "sequence number of the newest checkpoint, 0 for none", *_REPLICA
)
CHECKPOINT_SECONDS = _histogram(
    On.SHARD, "kintsugi_index_checkpoint_seconds", "how long a checkpoint took, from saving to synced", _LONG_SECONDS
)

# Shard server: upgrades. Of a replica, from start to the end; see docs/upgrades.md.

UPGRADE_STATE = _gauge(
    On.SHARD,
    "kintsugi_upgrade_state",
    "1 for the state of the collection's last upgrade, as this server knows it, 0 for the others",
    *_REPLICA,
    "state",
)
UPGRADE_MIGRATED = _gauge(
    On.SHARD, "kintsugi_upgrade_migrated_ratio", "part of the documents that have a vector of the new model", *_REPLICA
)
UPGRADE_MIGRATED_TRAFFIC = _gauge(
    On.SHARD,
    "kintsugi_upgrade_migrated_traffic_ratio",
    "part of the hits of recent searches of the new model whose document has a vector of it; older searches fade, by half in "
    "ten minutes; no value before there were some",
    *_REPLICA,
)
UPGRADE_PROJECTED = _gauge(
    On.SHARD,
    "kintsugi_upgrade_projected_hits_ratio",
    "part of the hits of recent searches of a model, old or new, that were found by a projection or by the other model's "
    "vector",
    *_REPLICA,
    "model",
)
UPGRADE_STALE_VECTORS = _gauge(
    On.SHARD,
    "kintsugi_upgrade_stale_vectors",
    "re-embedded vectors that were dropped because their document had changed or was gone, since the replica was opened",
    *_REPLICA,
)
UPGRADE_CALIBRATION_ERROR = _gauge(
    On.SHARD,
    "kintsugi_upgrade_calibration_error",
    "how far calibrated scores of recent searches of the new model are from native ones, in deviations of these, measured on "
    "anchors; no value when it cannot be measured, or no document lacks a new vector",
    *_REPLICA,
)
UPGRADE_RECALL = _gauge(
    On.SHARD,
    "kintsugi_upgrade_estimated_recall",
    "recall@10 of recent searches of the new model against a full re-embedding, estimated on anchors; no value where there is no "
    "calibration error",
    *_REPLICA,
)

# Shard server: searches.

SEARCH_WAITING = _gauge(
    On.SHARD, "kintsugi_search_waiting_queries", "queries that wait for the search thread of a replica", *_REPLICA
)
SEARCH_REFUSALS = _counter(
    On.SHARD, "kintsugi_search_refusals_total", "searches sent away because the queue of a replica was full"
)
SEARCH_EXACT = _counter(
    On.SHARD, "kintsugi_search_exact_total", "searches of all vectors: asked for, or because the index had too few"
)
SEARCH_WIDENED = _counter(
    On.SHARD, "kintsugi_search_widened_total", "searches repeated with more candidates because hits were missing"
)
QUEUE_SECONDS = _histogram(
    On.SHARD, "kintsugi_search_queue_seconds", "how long a search waited for the search thread", _SECONDS
)
BATCH_QUERIES = _histogram(
    On.SHARD, "kintsugi_search_batch_queries", "queries that were searched as one micro-batch", _COUNTS
)
SEARCH_STAGE_SECONDS = _histogram(
    On.SHARD,
    "kintsugi_search_stage_seconds",
    "how long a micro-batch spent in a stage: filter, index, scan, rescore or columns",
    _STAGE_SECONDS,
    "stage",
)
CANDIDATES = _histogram(
    On.SHARD,
    "kintsugi_search_candidates",
    "candidates that the index gave for a micro-batch; the best of them are rescored",
    _MANY,
)
RECALL = _gauge(
    On.SHARD,
    "kintsugi_search_recall",
    "part of the true best hits that live searches of the serving index version found, of those without a filter (plain) and "
    "with one (filtered); no value before some were measured",
    *_REPLICA,
    "model",
    "version",
    "encoding",
    "searches",
)
RECALL_QUERIES = _gauge(
    On.SHARD,
    "kintsugi_search_recall_queries",
    "searches that kintsugi_search_recall rests on, 500 at most",
    *_REPLICA,
    "model",
    "version",
    "encoding",
    "searches",
)
RECALL_SAMPLES = _counter(
    On.SHARD,
    "kintsugi_search_recall_samples_total",
    "live searches that were repeated exactly in the background to measure recall",
)
