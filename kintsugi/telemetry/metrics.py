"""Prometheus metrics of this process, and the HTTP endpoint that serves them.

Hot paths count with instruments, made once from the catalogue and bound to their labels in advance. What can be read
when somebody asks is read at the scrape, in the endpoint's own thread. Nothing is kept per client or per document.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from kintsugi.errors import Unavailable
from kintsugi.telemetry.log_events import LogEvent
from kintsugi.telemetry.logs import logger
from kintsugi.telemetry.metric_names import Kind, Metric

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# Not prometheus_client's own, which holds metrics of names that are not ours.
REGISTRY = CollectorRegistry()


class Sample(NamedTuple):
    """A value of a metric, with the values of its labels in the order of the declaration."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


def counter(metric: Metric) -> Counter:
    return Counter(metric.name, metric.meaning, metric.labels, registry=REGISTRY)


def histogram(metric: Metric) -> Histogram:
    return Histogram(metric.name, metric.meaning, metric.labels, buckets=metric.buckets, registry=REGISTRY)


def one_of(metric: Metric, values: Iterable[str], present: str, *labels: str) -> Iterator[Sample]:
    """The samples of a state: 1 for the present one, 0 for the others."""
    for value in values:
        yield Sample(metric, 1.0 if value == present else 0.0, (*labels, value))


class StateCollector(Collector):
    """Asks `read` at each scrape. Metrics without a sample are still announced. `read` runs in another thread than the
    event loop, so it looks at values that are replaced whole."""

    def __init__(self, metrics: Iterable[Metric], read: Callable[[], Iterable[Sample]]) -> None:
        self._metrics = tuple(metrics)
        self._read = read

    def collect(self) -> Iterable[Family]:
        families = {metric.name: _family(metric) for metric in self._metrics}
        for sample in self._read():
            families[sample.metric.name].add_metric(sample.labels, sample.value)
        return families.values()


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    return kind(metric.name, metric.meaning, labels=metric.labels)


@contextmanager
def collected(collector: Collector) -> Iterator[None]:
    """Within the block, scrapes ask the collector."""
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


@contextmanager
def endpoint(listen: str) -> Iterator[int]:
    """Serves the metrics over HTTP within the block, at /metrics and any other path; gives the port. Empty: not at all."""
    if not listen:
        yield 0
        return
    host, _, port = listen.rpartition(":")
    try:
        server, thread = prometheus_client.start_http_server(int(port), host, REGISTRY)
    except (OSError, ValueError) as error:
        raise Unavailable(f"metrics_listen is {listen}, must be a free port of this machine as host:port") from error
    address = f"{host}:{server.server_port}"
    logger("metrics").info(LogEvent.METRICS_LISTENING, address=address)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
