"""The knobs of a shard server."""

from dataclasses import dataclass

from kintsugi.settings import ProcessSettings, setting


@dataclass(frozen=True, slots=True)
class ShardSettings(ProcessSettings):
    """A Kintsugi shard server: hosts replicas, replays their logs, answers searches. Run one per core."""

    max_replica_bytes: int = setting(
        "bytes that the database of one replica may take; beyond it the replica stops and says so",
        2**40,
        minimum=2**20,
    )
    max_queued_searches: int = setting(
        "queries that may wait per replica, a batch counting as many as it holds; beyond it searches are refused at once",
        1024,
        minimum=1,
    )
    checkpoint_every_s: float = setting(
        "seconds between checkpoints of a changing index; lower it to restart faster, raise it to write less",
        60.0,
        minimum=0.1,
    )
    checkpoint_every_changes: int = setting(
        "changes after which an index is checkpointed before its time", 100_000, minimum=1
    )
    build_cpu: float = setting(
        "part of one core that building indexes beside serving ones may take while clients search; raise it to have changes "
        "done sooner, lower it to leave more to the searches",
        0.5,
        minimum=0.01,
        maximum=1,
    )
    recall_samples_per_minute: float = setting(
        "live searches per replica and minute that are repeated exactly in the background, to measure what part of the true "
        "best hits they find; 0 for none",
        30.0,
        minimum=0,
        maximum=6000,
    )
    keep_journal_records: int = setting(
        "records of the journal kept at least, for the outcomes of repeated writes", 200_000, minimum=1000
    )
    sync_writes: bool = setting(
        "sync every commit to disk; false loses acknowledged writes at a power cut, for experiments only", True
    )
