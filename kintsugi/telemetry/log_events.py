"""The names of everything that is logged, with their meanings. docs/telemetry.md is made from them."""

from kintsugi.telemetry.name import Name


class LogEvent(Name):
    """Every event that Kintsugi logs, as `NAME = value, meaning`."""

    PROCESS_STARTED = "process_started", "a process read its settings and begins"
    PROCESS_STOPPING = "process_stopping", "a process was asked to stop and drains"
    PROCESS_STOPPED = "process_stopped", "a process ended well"
    PROCESS_FAILED = "process_failed", "a process ended by a defect; the line holds its traceback"
    PROCESS_REFUSED = "process_refused", "a process cannot run as it is set up; the message says why"
    LIFECYCLE_CHANGED = "lifecycle_changed", "a process entered another state of its life"
    RPC_LISTENING = "rpc_listening", "the gRPC port is open"
    RPC_FAILED = "rpc_failed", "a call met a defect; its caller got INTERNAL with the request id of this line"
    METRICS_LISTENING = "metrics_listening", "metrics are served over HTTP at this address"
    TRACES_EXPORTED = "traces_exported", "traces are on: where they go, and how many"
    FOREIGN_LOG = "foreign_log", "a library logged something through the standard library"

    REGISTRY_HEALTH = "registry_health", "what Redis holds is, or is no longer, the registry that this process knows"
    REGISTRY_READ_FAILED = "registry_read_failed", "reading the registry met a defect; the next read may be well"
    REGISTRY_ADOPTION_FAILED = (
        "registry_adoption_failed",
        "a registry could not be adopted; the next refresh tries again",
    )
    REGISTRY_CALLBACK_FAILED = "registry_callback_failed", "somebody who follows the registry met a defect"
    REGISTRY_AWAITED = "registry_awaited", "no registry is known yet, so this process does not serve"
    REGISTRY_RESTORING = "registry_restoring", "Redis lost the registry; this server restores it"
    LOG_RECOVERED = "log_recovered", "the log of a shard was rebuilt under a new epoch"
    RECOVERY_POSTPONED = "recovery_postponed", "a recovery cannot go on now and will be tried again"

    REPLICA_PHASE = "replica_phase", "a replica entered another phase"
    REPLICA_FAILED = "replica_failed", "a replica met an error and will be tried again"
    REPLICA_REMOVED = "replica_removed", "the data of a replica of a deleted collection was removed"
    REPLICA_ORPHANED = "replica_orphaned", "a replica that the registry does not know was set aside"
    REPLAY_INTERRUPTED = "replay_interrupted", "the log cannot be read; tried again"
    REPLAY_OUT_OF_STEP = "replay_out_of_step", "a replica and its log disagree; the fields say how it goes on"
    LEFTOVER_LOG_REMOVED = "leftover_log_removed", "a log that no collection has was removed from Redis"
    HOLD_BROKEN = "hold_broken", "a log kept too much for a joining replica and no longer waits for it; it starts over"
    UPGRADE_MOVED = (
        "upgrade_moved",
        "an upgrade went on by itself, because the replicas had reached what its state waits for",
    )
    TRIM_POSTPONED = "trim_postponed", "the journal was not trimmed; tried again"
    ATTRIBUTES_INDEXING = "attributes_indexing", "a database of an earlier release gets its attribute index as it opens"
    ATTRIBUTES_INDEXED = "attributes_indexed", "the attribute index is complete"
    BOOTSTRAP_STARTED = "bootstrap_started", "a replica copies from a peer"
    DIVERGENT_TAIL_SAVED = "divergent_tail_saved", "records that only this replica held were written to a file"
    INDEX_REPORT_POSTPONED = (
        "index_report_postponed",
        "the registry did not take the state of an index version; tried again",
    )
    UPGRADE_NOT_FOLLOWED = "upgrade_not_followed", "an artifact of an upgrade cannot be read; tried again"
    ARTIFACT_NOT_CACHED = "artifact_not_cached", "Redis did not take an artifact back; tried again by the next reader"
    BUILD_POSTPONED = "build_postponed", "a replica could not ask for its turn to build; tried again"
    INDEX_BUILD_STARTED = "index_build_started", "an index version is being built"
    INDEX_BUILT = "index_built", "an index version was built and measured"
    INDEXER_FAILED = "indexer_failed", "the index no longer follows its replica, which leaves the in-sync set"
    CHECKPOINT_REMOVED = "checkpoint_removed", "a checkpoint was torn or of another format, and was removed"
    CHECKPOINT_MISFIT = "checkpoint_misfit", "a checkpoint is not of this replica's history, and was removed"
    RECALL_NOT_MEASURED = "recall_not_measured", "samples of live searches were dropped; the next ones are tried"
    SEARCH_FAILED = "search_failed", "a search met a defect"
