"""The names in traces and in the metadata of calls, with their meanings. docs/telemetry.md is made from them.

A span bears the name of its method, as gRPC writes it: `kintsugi.v1.Search/Search`.
"""

from kintsugi.telemetry.name import Name

# Metadata of a call. The first is ours, the others are the W3C's; links are further `traceparent`s, separated by commas.
REQUEST_ID_KEY = "x-request-id"
TRACE_PARENT_KEY = "traceparent"
TRACE_LINKS_KEY = "x-trace-links"


class SpanEvent(Name):
    """What happened within a hop. Each that took time has its duration, and stands at its end."""

    ADMIT = "admit", "coordinator: the call waited for its turn"
    PLAN = "plan", "coordinator: model, shards and replicas were chosen"
    FAN_OUT = "fan-out", "coordinator: the replicas answered, or failed for good"
    MERGE = "merge", "coordinator: the answers of the shards became one"
    RETRY = "retry", "client, coordinator: an attempt failed and another one begins"
    SECOND_TRY = "second-try", "coordinator: a slow replica got a competitor"
    APPEND = "append", "coordinator: the log took the write of one shard"
    ACKNOWLEDGE = "acknowledge", "coordinator: the write of one shard is as safe as was asked"
    QUEUE = "queue", "shard server: the search waited for the search thread"
    SEARCH = "search", "shard server: the index gave candidates"
    RESCORE = "rescore", "shard server: stored vectors were read, candidates scored, hits ranked"


class Attribute(Name):
    """Attributes of spans and of their events."""

    RPC_SYSTEM = "rpc.system.name", "`grpc`, on every span"
    RPC_METHOD = "rpc.method", "the method, on every span"
    STATUS = "rpc.response.status_code", "the gRPC status, on every span"
    REQUEST_ID = "kintsugi.request_id", "the request id that log lines bear, on every span"
    SERVICE = "service.name", "resource: `kintsugi-coordinator` or `kintsugi-shard`"
    INSTANCE = "service.instance.id", "resource: the member id in the registry"
    VERSION = "service.version", "resource: the version of Kintsugi"
    DURATION = "kintsugi.duration_ms", "event: how long it took, in milliseconds"
    SHARDS = "kintsugi.shards", "event: the shards that were asked"
    FAILED_SHARDS = "kintsugi.failed_shards", "event: the shards that gave no answer"
    SHARD = "kintsugi.shard", "event: the number of the shard"
    MEMBER = "kintsugi.member", "event: the shard server that is asked next"
    BATCH_QUERIES = "kintsugi.batch_queries", "event: the queries that were searched together"
    CANDIDATES = "kintsugi.candidates", "event: the candidates that the index gave for the whole batch"
