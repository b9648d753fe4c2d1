"""What a running cluster tells: one trace over client, coordinator and both shard servers; the metrics of each process."""

import asyncio
import contextlib
import urllib.request
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from harness.waiting import until, until_empty
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from coordinator import app
from coordinator.settings import CoordinatorSettings
from kintsugi import AsyncClient, Client, Model
from kintsugi.errors import KintsugiError
from kintsugi.local.cluster import VALKEY
from kintsugi.local.folder import TARGETS_FILE, take_port
from kintsugi.local.initialise import initialise
from kintsugi.local.valkey import Valkey
from kintsugi.registry.records import Defaults
from kintsugi.telemetry import tracing
from kintsugi.telemetry.metric_names import CATALOGUE, Kind, On
from kintsugi.telemetry.trace_names import Attribute
from shard import __main__ as shard_server
from shard.settings import ShardSettings

SEARCH = "kintsugi.v1.Search/Search"
SHARD_SEARCH = "kintsugi.internal.v1.Shard/Search"
VECTORS = np.random.default_rng(3).normal(size=(60, 8)).astype(np.float32)


@dataclass(frozen=True)
class Traced:
    """A coordinator and two shard servers in this process, and whatever they and the clients trace."""

    address: str
    provider: TracerProvider
    exporter: InMemorySpanExporter

    def client(self) -> AsyncClient:
        return AsyncClient(self.address, tracer_provider=self.provider)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
async def traced(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Traced]:
    await initialise(valkey.url, "kintsugi", "c" * 32, Defaults(shards=2, replicas=1))
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.record_to(provider, 0.0)
    stop = asyncio.Event()
    address = f"127.0.0.1:{take_port(None, set())}"
    coordinator = CoordinatorSettings(data=tmp_path / "coordinator", redis=valkey.url, listen=address)
    shards = [ShardSettings(data=tmp_path / name, redis=valkey.url) for name in ("shard-0", "shard-1")]
    try:
        async with asyncio.TaskGroup() as processes:
            for settings in shards:
                processes.create_task(shard_server.serve(settings, stop))
            processes.create_task(app.serve(coordinator, stop))
            yield Traced(address, provider, exporter)
            stop.set()
    finally:
        tracing.record_to(None, 0.0)


@contextlib.asynccontextmanager
async def filled(traced: Traced) -> AsyncIterator[AsyncClient]:
    """A client, once both shard servers are there, and a collection with documents on both shards."""
    async with traced.client() as client:

        async def missing() -> str:
            try:
                present = sum(member.role == "shard" for member in (await client.status(timeout_s=1)).members)
            except KintsugiError as error:
                return str(error)
            return "" if present == 2 else f"{present} shard servers"

        await until_empty(missing)
        await client.create_collection("docs", Model("m", 8), shards=2, replicas=1)
        await client.upsert("docs", list(range(60)), VECTORS, acknowledgement="searchable")
        traced.exporter.clear()
        yield client


def events(span: ReadableSpan) -> dict[str, float]:
    """The events of a span in their order, with their durations in milliseconds."""
    return {event.name: event.attributes.get(Attribute.DURATION, -1.0) for event in span.events}


async def test_one_search_is_one_trace_over_all_hops(traced: Traced) -> None:
    """Client, coordinator and both shards, one span each, say where the time of one search went."""
    async with filled(traced) as client:
        await client.search("docs", VECTORS[0], k=3)
        await until(lambda: len(traced.exporter.get_finished_spans()) == 4, "all spans end")
    of_client, of_coordinator = sorted(traced.spans(SEARCH), key=lambda span: span.parent is not None)
    of_shards = traced.spans(SHARD_SEARCH)
    assert of_client.kind.name == "CLIENT"
    assert of_coordinator.parent.span_id == of_client.context.span_id
    assert [span.parent.span_id for span in of_shards] == [of_coordinator.context.span_id] * 2
    assert len({span.context.trace_id for span in (of_client, of_coordinator, *of_shards)}) == 1
    assert len({span.attributes[Attribute.REQUEST_ID] for span in (of_client, of_coordinator, *of_shards)}) == 1
    assert list(events(of_coordinator)) == ["admit", "plan", "fan-out", "merge"]
    for span in of_shards:
        assert list(events(span)) == ["queue", "search", "rescore"]
        assert all(took_ms >= 0 for took_ms in events(span).values())
        assert sum(events(span).values()) <= (span.end_time - span.start_time) / 1e6


async def test_traced_queries_of_one_message_are_found_from_each_of_their_traces(traced: Traced) -> None:
    """Each traced search has a shard span for both shards, as its child or linked to it."""
    async with filled(traced), contextlib.AsyncExitStack() as clients:
        # Each client has its own calls; a lane with two messages in flight puts the rest together.
        many = [await clients.enter_async_context(traced.client()) for _ in range(12)]
        await asyncio.gather(*(client.status() for client in many))
        traced.exporter.clear()
        await asyncio.gather(*(client.search("docs", VECTORS[0], k=3) for client in many))
        await until(lambda: len(traced.spans(SEARCH)) == 24, "all spans end")
    served = [span for span in traced.spans(SEARCH) if span.parent is not None]
    of_shards = traced.spans(SHARD_SEARCH)
    assert any(span.links for span in of_shards), "no message carried several searches"
    assert len(of_shards) < 2 * len(served)
    for search in served:
        mine = search.context.span_id
        found = [
            span for span in of_shards if mine in {span.parent.span_id, *(li.context.span_id for li in span.links)}
        ]
        assert len(found) == 2
        ids = [span.attributes[Attribute.REQUEST_ID].split(",") for span in found]
        assert all(search.attributes[Attribute.REQUEST_ID] in together for together in ids)


async def test_a_traced_write_tells_of_its_log_and_its_replicas(traced: Traced) -> None:
    """What a write waits for is the log, then a replica per shard."""
    async with filled(traced) as client:
        await client.upsert("docs", [0, 1, 2, 3], VECTORS[:4])
        await until(lambda: len(traced.spans("kintsugi.v1.Documents/Upsert")) == 2, "the spans of the write end")
    (served,) = [span for span in traced.spans("kintsugi.v1.Documents/Upsert") if span.parent is not None]
    assert [event.name for event in served.events].count("append") == 2
    assert [event.name for event in served.events].count("acknowledge") == 2
    waits = traced.spans("kintsugi.internal.v1.Shard/Await")
    assert {span.parent.span_id for span in waits} == {served.context.span_id}


async def test_a_client_without_tracer_provider_is_not_traced(traced: Traced) -> None:
    """An application that does not trace pays nothing, and nobody behind it begins a trace."""
    async with filled(traced), AsyncClient(traced.address) as client:
        await client.search("docs", VECTORS[0], k=3)
        assert traced.exporter.get_finished_spans() == ()


def families(address: str) -> dict[str, tuple[str, set[str]]]:
    """The metrics of an endpoint: name to kind and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        family.name: (family.type, {label for sample in family.samples for label in sample.labels})
        for family in text_string_to_metric_families(text)
    }


def documented(*processes: On) -> Iterable[tuple[str, str, set[str]]]:
    for metric in CATALOGUE:
        if metric.on in processes:
            labels = {*metric.labels, *(("le",) if metric.kind is Kind.HISTOGRAM else ())}
            yield metric.name.removesuffix("_total"), metric.kind.value, labels


def test_every_process_serves_exactly_the_documented_metrics(new_cluster) -> None:
    """The tables are what a cluster really says: name, kind and labels."""
    cluster = new_cluster(servers=2)
    with Client(cluster.address) as client:
        client.create_collection("docs", Model("m", 8), shards=2, replicas=2)
        client.upsert("docs", list(range(60)), VECTORS, acknowledgement="searchable")
        client.search("docs", VECTORS[0], k=3)
    for name in (name for name in cluster.names() if name != VALKEY):
        role = On.COORDINATOR if name.startswith("coordinator") else On.SHARD
        found = families(cluster.metrics_address_of(name))
        wanted = {metric: (kind, labels) for metric, kind, labels in documented(On.EVERY, role)}
        assert found.keys() == wanted.keys(), name
        for metric, (kind, labels) in wanted.items():
            assert found[metric][0] == kind, metric
            # What has not happened yet has no labels yet.
            assert found[metric][1] in (labels, set(), labels & {"le"}), metric
        assert cluster.metrics_address_of(name) in (cluster.data / TARGETS_FILE).read_text()
