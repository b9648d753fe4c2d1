"""The telemetry that every server process has: its endpoint, its traces, and what is known of any process.

`async with observed(...)` around the life of a process is all that the processes do.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kintsugi.lifecycle import Lifecycle, LifecycleState
from kintsugi.process_memory import resident_bytes
from kintsugi.registry.records import LogState, ReplicaState
from kintsugi.registry.watch import RegistryHealth, RegistryWatcher
from kintsugi.settings import ProcessSettings
from kintsugi.telemetry import LogEvent, logger
from kintsugi.telemetry import metric_names as names
from kintsugi.telemetry.export import Origin, exported
from kintsugi.telemetry.metric_names import CATALOGUE, Kind, Metric, On
from kintsugi.telemetry.metrics import Sample, StateCollector, collected, endpoint, histogram, one_of
from kintsugi.version import VERSION

_LOOP_LOOK_EVERY_S = 0.25
_STARTED_AT = time.time()
_LOOP_LAG = histogram(names.LOOP_LAG_SECONDS)

# Counters of a state, not of an instrument.
_ASKED = (names.CPU_SECONDS,)


@dataclass(frozen=True, slots=True)
class Process:
    """What all processes can tell of themselves. `role` is `coordinator` or `shard`."""

    role: str
    member: str
    lifecycle: Lifecycle
    watcher: RegistryWatcher

    def samples(self) -> Iterable[Sample]:
        yield Sample(names.INFO, 1.0, (self.role, self.member, VERSION))
        yield Sample(names.START_TIME, _STARTED_AT)
        yield Sample(names.RESIDENT_BYTES, resident_bytes())
        times = os.times()
        yield Sample(names.CPU_SECONDS, times.user + times.system)
        yield from one_of(names.LIFECYCLE, LifecycleState, self.lifecycle.state)
        yield from one_of(names.REGISTRY_HEALTH, RegistryHealth, self.watcher.health)
        view = self.watcher.view
        yield Sample(names.REGISTRY_INCARNATION, view.snapshot.incarnation if view else 0)
        yield Sample(names.REGISTRY_REVISION, view.snapshot.revision if view else 0)
        shards = list(view.shards.values()) if view else []
        recovering = sum(shard.log_state is LogState.RECOVERING for shard in shards)
        yield Sample(names.SHARDS_RECOVERING, recovering)
        states = [state for shard in shards for state in shard.replicas.values()]
        for state in ReplicaState:
            yield Sample(names.REPLICAS, states.count(state), (state,))


def asked_of(on: On) -> Sequence[Metric]:
    """The metrics that processes of a kind tell at the scrape."""
    return [metric for metric in CATALOGUE if metric.on is on and (metric.kind is Kind.GAUGE or metric in _ASKED)]


@asynccontextmanager
async def observed(
    settings: ProcessSettings, process: Process, read: Callable[[], Iterable[Sample]], *, trace_ratio: float = 0.0
) -> AsyncIterator[None]:
    """Serves metrics and exports traces within the block, as the settings say. `read` gives the samples of what only
    this kind of process has; `trace_ratio` decides on calls whose callers did not."""
    log = logger(process.role)
    process.lifecycle.subscribe(lambda state: log.info(LogEvent.LIFECYCLE_CHANGED, state=state.value))
    own = StateCollector(asked_of(On.COORDINATOR if process.role == "coordinator" else On.SHARD), read)
    origin = Origin(f"kintsugi-{process.role}", process.member)
    with (
        exported(settings.trace_to, trace_ratio, origin),
        collected(StateCollector(asked_of(On.EVERY), process.samples)),
        collected(own),
        endpoint(settings.metrics_listen),
    ):
        watching = asyncio.create_task(_watch_loop())
        try:
            yield
        finally:
            watching.cancel()


async def _watch_loop() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LOOP_LOOK_EVERY_S
        await asyncio.sleep(_LOOP_LOOK_EVERY_S)
        _LOOP_LAG.observe(max(0.0, loop.time() - due))
