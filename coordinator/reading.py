"""Puts the reading half of a coordinator together."""

import asyncio
import time
from dataclasses import dataclass, field

from coordinator.admission import Admission
from coordinator.batching import Batcher, BatchLimits
from coordinator.deadline import Clock
from coordinator.fanout import FanOut
from coordinator.gathering import Gathering
from coordinator.load import HedgeSettings, ReplicaLoad
from coordinator.reads import Reads
from coordinator.search import Searches
from coordinator.search_streams import SearchStreams
from coordinator.services.reads import DocumentReads
from coordinator.services.search import SearchService
from coordinator.shards import ShardCalls, StubOf
from coordinator.views import Registry, Views


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """`max_running` and `max_waiting` count queries; the other reads count as one each and share the limits."""

    max_running: int = 256
    max_waiting: int = 4096
    batching: BatchLimits = field(default_factory=BatchLimits)
    hedging: HedgeSettings = field(default_factory=HedgeSettings)
    merge_reserve_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Reading:
    search_service: SearchService
    document_reads: DocumentReads
    reads: Reads
    admission: Admission
    batcher: Batcher
    streams: SearchStreams


def build_reading(
    registry: Registry,
    stub_of: StubOf,
    draining: asyncio.Event,
    settings: ReadSettings | None = None,
    clock: Clock = time.monotonic,
) -> Reading:
    """`registry` is a RegistryWatcher; `stub_of` gives the stub of a shard server by address; `draining` is the server's."""
    settings = settings or ReadSettings()
    views = Views(registry, clock)
    registry.subscribe(views.note_leases)
    calls = ShardCalls(stub_of)
    admission = Admission(max_running=settings.max_running, max_waiting=settings.max_waiting, clock=clock)
    streams = SearchStreams(stub_of, calls)
    batcher = Batcher(streams.search, settings.batching)
    gathering = Gathering(views, FanOut(ReplicaLoad(clock, settings.hedging)))
    searches = Searches(views, admission, batcher, gathering, merge_reserve_s=settings.merge_reserve_s)
    reads = Reads(views, admission, gathering, calls)
    return Reading(
        SearchService(searches, clock, draining), DocumentReads(reads, clock), reads, admission, batcher, streams
    )
