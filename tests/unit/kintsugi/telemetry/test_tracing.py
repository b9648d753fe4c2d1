"""Which calls are traced, what travels with them, and what a span holds."""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kintsugi import telemetry
from kintsugi.errors import FailedPrecondition
from kintsugi.rpc.served_calls import Method
from kintsugi.telemetry import tracing
from kintsugi.telemetry.export import Origin, exported
from kintsugi.telemetry.trace_names import REQUEST_ID_KEY, TRACE_LINKS_KEY, TRACE_PARENT_KEY, Attribute, SpanEvent

SAMPLED = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
UNSAMPLED = SAMPLED[:-2] + "00"
METHOD = Method("/kintsugi.v1.Search/Search")


@contextlib.contextmanager
def recording(ratio: float) -> Iterator[InMemorySpanExporter]:
    """Calls served within the block are recorded in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.record_to(provider, ratio)
    try:
        yield exporter
    finally:
        tracing.record_to(None, 0.0)


async def served(*metadata: tuple[str, str], code: str = "OK") -> tuple[tuple[str, str], ...]:
    """Serves a call in a task of its own, and returns what a call made meanwhile carries on."""

    async def serve() -> tuple[tuple[str, str], ...]:
        call = METHOD.begin(metadata)
        carried = tracing.outgoing_metadata()
        call.end(code)
        return carried

    return await asyncio.create_task(serve())


@pytest.mark.parametrize(
    ("parent", "ratio", "traced"),
    [("", 0.0, False), ("", 1.0, True), (SAMPLED, 0.0, True), (UNSAMPLED, 1.0, False), ("nonsense", 1.0, False)],
)
async def test_the_caller_decides_and_else_the_ratio(parent: str, ratio: float, traced: bool) -> None:
    """Traces are whole: nobody drops a part of one, and nobody adds parts to none."""
    with recording(ratio) as exporter:
        await served(*([(TRACE_PARENT_KEY, parent)] if parent else []))
        assert bool(exporter.get_finished_spans()) is traced


async def test_a_call_that_is_not_traced_carries_its_request_id_only() -> None:
    """No trace context means no tracing behind: shard servers do not draw."""
    with recording(0.0):
        assert await served((REQUEST_ID_KEY, "r-1"), (TRACE_PARENT_KEY, UNSAMPLED)) == ((REQUEST_ID_KEY, "r-1"),)


async def test_a_served_span_continues_the_trace_and_tells_its_outcome() -> None:
    """Span and log lines are found from each other by the request id."""
    with recording(0.0) as exporter:
        carried = dict(await served((REQUEST_ID_KEY, "r-1"), (TRACE_PARENT_KEY, SAMPLED), code="UNAVAILABLE"))
        (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == SAMPLED.split("-")[1]
    assert f"{span.parent.span_id:016x}" == SAMPLED.split("-")[2]
    assert span.name == "kintsugi.v1.Search/Search"
    assert span.attributes[Attribute.REQUEST_ID] == "r-1"
    assert span.attributes[Attribute.STATUS] == "UNAVAILABLE"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert carried[TRACE_PARENT_KEY] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


async def test_a_message_for_several_traced_calls_is_linked_to_each() -> None:
    """A batch belongs to all traces in it."""
    contexts = [
        trace.SpanContext(number, number, is_remote=False, trace_flags=trace.TraceFlags(1)) for number in (1, 2, 3)
    ]

    async def send() -> tuple[tuple[str, str], ...]:
        telemetry.bind_request_ids(["a", "b", "a"])
        tracing.carry(contexts)
        return tracing.outgoing_metadata()

    sent = await asyncio.create_task(send())
    with recording(0.0) as exporter:
        await served(*sent)
        (span,) = exporter.get_finished_spans()
    assert span.parent.span_id == 1
    assert [link.context.span_id for link in span.links] == [2, 3]
    assert span.attributes[Attribute.REQUEST_ID] == "a,b"


async def test_malformed_links_are_left_out() -> None:
    """What a stranger sends breaks nothing."""
    with recording(0.0) as exporter:
        await served((TRACE_PARENT_KEY, SAMPLED), (TRACE_LINKS_KEY, f"x,,00-zz,{SAMPLED}"))
        (span,) = exporter.get_finished_spans()
    assert [f"{link.context.span_id:016x}" for link in span.links] == ["0123456789abcdef"]


async def test_health_checks_are_not_traced() -> None:
    """Probes come every second and mean nothing."""
    with recording(1.0) as exporter:
        Method("/grpc.health.v1.Health/Check").begin([]).end("OK")
        assert exporter.get_finished_spans() == ()


async def test_stages_follow_each_other() -> None:
    """The durations of the stages add up to the time of the call."""

    async def serve() -> None:
        call = METHOD.begin([(TRACE_PARENT_KEY, SAMPLED)])
        stages = tracing.Stages()
        stages.reached(SpanEvent.ADMIT)
        stages.reached(SpanEvent.PLAN, shards=2)
        call.end("OK")

    with recording(0.0) as exporter:
        await asyncio.create_task(serve())
        (span,) = exporter.get_finished_spans()
    assert [event.name for event in span.events] == ["admit", "plan"]
    assert span.events[0].timestamp <= span.events[1].timestamp <= span.end_time
    assert span.events[1].attributes[Attribute.SHARDS] == 2
    assert all(event.attributes[Attribute.DURATION] >= 0 for event in span.events)


@pytest.mark.parametrize("offered", ["", "ä", "with space", "a" * 65, 'x"', "a,,b"])
async def test_a_malformed_request_id_is_replaced(offered: str) -> None:
    """What stands in log lines cannot be forged by callers."""
    carried = dict(await served((REQUEST_ID_KEY, offered)))
    assert carried[REQUEST_ID_KEY] != offered
    assert len(carried[REQUEST_ID_KEY]) == 16


def test_without_an_exporter_nothing_is_traced() -> None:
    """The default costs nothing."""
    with exported("", 1.0, Origin("kintsugi-test", "one")):
        assert tracing.begin_served("m", SAMPLED, "") is None


async def test_a_file_gets_one_json_object_per_span(tmp_path: Path) -> None:
    """Traces can be looked at without a collector."""
    file = tmp_path / "traces"
    with exported(f"file:{file}", 1.0, Origin("kintsugi-test", "one")):
        await served()
        await served()
    assert [line[:36] for line in file.read_text().splitlines()] == ['{"name": "kintsugi.v1.Search/Search"'] * 2


@pytest.mark.parametrize("trace_to", ["localhost:4317", "file:/nowhere/at/all"])
def test_an_exporter_that_cannot_be_is_refused(trace_to: str) -> None:
    """Nobody finds out after the incident that no trace was ever written."""
    with (
        pytest.raises(FailedPrecondition, match="trace_to is"),
        exported(trace_to, 1.0, Origin("kintsugi-test", "one")),
    ):
        pytest.fail("it was taken")


async def test_an_otlp_collector_gets_the_spans() -> None:
    """The extra `otlp` speaks to any collector."""
    received: list[trace_service_pb2.ExportTraceServiceRequest] = []

    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            received.append(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with exported(f"http://127.0.0.1:{port}", 1.0, Origin("kintsugi-test", "one")):
            await served()
    finally:
        server.stop(None).wait()
    spans = [span for request in received for resource in request.resource_spans for span in resource.scope_spans]
    assert [span.name for scope in spans for span in scope.spans] == ["kintsugi.v1.Search/Search"]
    attributes = {one.key: one.value.string_value for one in received[0].resource_spans[0].resource.attributes}
    assert attributes[Attribute.SERVICE] == "kintsugi-test"
