"""When a search was where, and how that is told: as metrics of every micro-batch, as events in the spans of traced calls."""

from dataclasses import dataclass

from kintsugi.telemetry import metric_names as names
from kintsugi.telemetry import metrics, tracing
from kintsugi.telemetry.trace_names import SpanEvent

EXACT = metrics.counter(names.SEARCH_EXACT)
REFUSALS = metrics.counter(names.SEARCH_REFUSALS)
WIDENED = metrics.counter(names.SEARCH_WIDENED)
QUEUE_SECONDS = metrics.histogram(names.QUEUE_SECONDS)

_BATCH_QUERIES = metrics.histogram(names.BATCH_QUERIES)
_INDEX_SECONDS = metrics.histogram(names.INDEX_SECONDS)
_RESCORE_SECONDS = metrics.histogram(names.RESCORE_SECONDS)
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


def count_batch(began: float, times: SearchTimes) -> None:
    _BATCH_QUERIES.observe(times.queries)
    _INDEX_SECONDS.observe(times.searched - began)
    _RESCORE_SECONDS.observe(times.ranked - times.searched)
    _CANDIDATES.observe(times.candidates)


def tell_span(called: float, times: SearchTimes) -> None:
    """Notes where a search that was called then spent its time in the span of the current call."""
    span = tracing.current_span()
    if span is None:
        return
    tracing.add_event(span, SpanEvent.QUEUE, called, times.started, {})
    sizes = {"batch_queries": times.queries, "candidates": times.candidates}
    tracing.add_event(span, SpanEvent.SEARCH, times.started, times.searched, sizes)
    tracing.add_event(span, SpanEvent.RESCORE, times.searched, times.ranked, {})
