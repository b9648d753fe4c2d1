"""When a search was where, and how that is told: as metrics of every micro-batch, as events in the spans of traced calls."""

import time
from dataclasses import dataclass
from enum import StrEnum

from kintsugi.telemetry import metric_names as names
from kintsugi.telemetry import metrics, tracing
from kintsugi.telemetry.trace_names import SpanEvent


class Stage(StrEnum):
    """What the search thread does for a micro-batch."""

    # The rows that fulfil the filter.
    FILTER = "filter"
    # Candidates from the graph, and what narrows them.
    INDEX = "index"
    # Rows that fulfil the filter, compared one by one.
    SCAN = "scan"
    # Stored vectors are read and scored.
    RESCORE = "rescore"
    # Ids, versions and what else was asked for are read, hits are ranked.
    COLUMNS = "columns"


EXACT = metrics.counter(names.SEARCH_EXACT)
REFUSALS = metrics.counter(names.SEARCH_REFUSALS)
WIDENED = metrics.counter(names.SEARCH_WIDENED)
QUEUE_SECONDS = metrics.histogram(names.QUEUE_SECONDS)

_BATCH_QUERIES = metrics.histogram(names.BATCH_QUERIES)
_STAGE_SECONDS = metrics.histogram(names.SEARCH_STAGE_SECONDS)
_OF_STAGE = {stage: _STAGE_SECONDS.labels(stage.value) for stage in Stage}
_CANDIDATES = metrics.histogram(names.CANDIDATES)


@dataclass(frozen=True, slots=True)
class SearchTimes:
    """Readings of time.perf_counter(): the search thread took the search up, had candidates, had hits. And how many
    queries and candidates the micro-batch had."""

    started: float
    searched: float
    ranked: float
    queries: int
    candidates: int


UNKNOWN = SearchTimes(0.0, 0.0, 0.0, 0, 0)


class StageClock:
    """Divides the time of a micro-batch among its stages."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._seconds: dict[Stage, float] = {}

    def lap(self, stage: Stage) -> float:
        """What has passed since the last lap went into this stage. Returns how long that was."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self._seconds[stage] = self._seconds.get(stage, 0.0) + passed
        return passed

    @property
    def last(self) -> float:
        """When the last lap ended."""
        return self._last

    def tell(self, queries: int, candidates: int) -> None:
        """Counts the micro-batch."""
        _BATCH_QUERIES.observe(queries)
        _CANDIDATES.observe(candidates)
        for stage, seconds in self._seconds.items():
            _OF_STAGE[stage].observe(seconds)


def tell_span(called: float, times: SearchTimes) -> None:
    """Notes where a search that was called then spent its time in the span of the current call."""
    span = tracing.current_span()
    if span is None:
        return
    tracing.add_event(span, SpanEvent.QUEUE, called, times.started, {})
    sizes = {"batch_queries": times.queries, "candidates": times.candidates}
    tracing.add_event(span, SpanEvent.SEARCH, times.started, times.searched, sizes)
    tracing.add_event(span, SpanEvent.RESCORE, times.searched, times.ranked, {})
