"""Measures the recall of live searches in the background, replica by replica, for as long as the server runs.

    wait a window -> of each replica that answered searches: take its samples, repeat them exactly and as they were -> note
                     while documents lack a vector of the searched model: estimate what that costs (upgrade_quality.py)

It takes a twentieth of one core and of the disk at most: with more vectors than that can scan in a window, windows get
longer. What cannot be measured now, because the replica closes or its index lags, is dropped.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from kintsugi.errors import KintsugiError
from kintsugi.telemetry import LogEvent, logger, metric_names, metrics
from shard.checkpoint import IndexVersion
from shard.engine import Engine
from shard.model_index import ModelIndex
from shard.pace import Clocks, Pace
from shard.recall import Found, Probe, RecallCheck
from shard.recall_samples import window_s
from shard.replica import Replica
from shard.upgrade_status import lacking

# Of one core. Time counts rather than processor time: what waits for the disk keeps others waiting for it.
_SHARE = 0.05
_CLOCKS = Clocks(busy=time.monotonic)
_log = logger("recall")
_SAMPLES = metrics.counter(metric_names.RECALL_SAMPLES)


class RecallWatch:
    """`replicas` gives those of this server."""

    def __init__(
        self,
        replicas: Callable[[], Iterable[Replica]],
        samples_per_minute: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._replicas = replicas
        self._window_s = window_s(samples_per_minute)
        self._is_on = samples_per_minute > 0
        self._sleep = sleep
        self._thread = ThreadPoolExecutor(1, "recall")

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while self._is_on:
                await self._sleep(self._window_s)
                for replica in list(self._replicas()):
                    await self._check(replica)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _check(self, replica: Replica) -> None:
        try:
            engine = replica.engine
            for index in list(engine.models.values()):
                await self._estimate(engine, index)
                if probes := index.recall.take():
                    found = await self._checking(engine, index).measure(probes)
                    serving = index.indexer.serving
                    vectors = len(serving.index) if serving is not None else 0
                    _SAMPLES.inc(index.recall.note(zip(probes, found, strict=True), vectors))
                    _learn(serving, zip(probes, found, strict=True))
        except KintsugiError as error:
            _log.info(LogEvent.RECALL_NOT_MEASURED, **_names(replica), error=str(error))
        except Exception:  # noqa: BLE001 -- what only measures must not end the server
            _log.exception(LogEvent.RECALL_NOT_MEASURED, **_names(replica))

    async def _estimate(self, engine: Engine, index: ModelIndex) -> None:
        """What it costs searches of a model that documents lack a vector of it. From anchors, so nothing is scanned."""
        crossing, part = engine.crossing(index.model.name), lacking(engine.storage, index.model.number)
        measure = partial(index.quality.measure, crossing, part)
        await asyncio.get_running_loop().run_in_executor(self._thread, measure)

    def _checking(self, engine: Engine, index: ModelIndex) -> RecallCheck:
        def pace() -> Pace:
            return Pace(_SHARE, engine.closing, clocks=_CLOCKS)

        return RecallCheck(index.source, index.indexer, index.searcher, self._thread, pace)


def _learn(serving: IndexVersion | None, checked: Iterable[tuple[Probe, Found]]) -> None:
    """Searches that leave it open how broad they are become as broad as they must be."""
    for probe, found in checked:
        is_plain = probe.filter is None and probe.min_score is None
        is_open = is_plain and probe.oversampling is None and probe.ef_search is None
        if serving is not None and is_open and found.recall is not None and found.index_version == serving.number:
            serving.index.breadth.note(found.recall, probe.k)


def _names(replica: Replica) -> dict[str, object]:
    return {"collection": replica.collection.name, "shard": replica.ref.shard}
