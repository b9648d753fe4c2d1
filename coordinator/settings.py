"""The settings of the coordinator process. kintsugi/settings.py reads them from flags and KINTSUGI_* variables."""

from dataclasses import dataclass

from kintsugi.limits import DEFAULT_DEADLINE_S
from kintsugi.settings import ProcessSettings, setting


@dataclass(frozen=True, slots=True)
class CoordinatorSettings(ProcessSettings):
    """A Kintsugi coordinator: takes searches and writes from clients. Stateless but for its member id and
    the registry as it last saw it."""

    write_deadline_s: float = setting(
        "time for one write or one chunk of a bulk call when the caller sets none; lower it to learn of trouble sooner",
        DEFAULT_DEADLINE_S,
        minimum=0.1,
        maximum=600,
    )
    create_deadline_s: float = setting(
        "time for a new collection to come up on all of its replicas when the caller sets none",
        30.0,
        minimum=1,
        maximum=600,
    )
    group_documents: int = setting(
        "documents appended to a shard's log at once; raise it for throughput, lower it for latency",
        256,
        minimum=1,
        maximum=1000,
    )
    group_bytes: int = setting(
        "bytes appended to a shard's log at once; a larger request is appended alone",
        8 * 2**20,
        minimum=2**16,
        maximum=64 * 2**20,
    )
    pending_bytes: int = setting(
        "bytes of writes that may wait for the log in this process; beyond it writes get RESOURCE_EXHAUSTED",
        256 * 2**20,
        minimum=2**20,
    )
    bulk_chunks: int = setting("chunks of one bulk call that are in flight at once", 8, minimum=1, maximum=64)
    max_log_bytes: int = setting(
        "bytes one shard's log may hold in Redis; it must cover what arrives while a replica is down, up to the moment "
        "when it leaves the in-sync set",
        512 * 2**20,
        minimum=2**20,
    )
    out_of_sync_after_s: float = setting(
        "time without lease after which a replica leaves the in-sync set, so that the log can be trimmed; raise it to "
        "ride out longer restarts, at the price of a longer log",
        10.0,
        minimum=1,
        maximum=3600,
    )
    max_running_queries: int = setting(
        "queries that run at once; raise it on machines with many cores", 256, minimum=1, maximum=65536
    )
    max_waiting_queries: int = setting(
        "queries that may wait; beyond it searches get RESOURCE_EXHAUSTED", 4096, minimum=0, maximum=10**6
    )
    trace_ratio: float = setting(
        "part of the calls that is traced when trace_to is set and the caller did not decide; shard servers follow",
        0.01,
        minimum=0,
        maximum=1,
    )
