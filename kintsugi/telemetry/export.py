"""Where recorded spans go: to an OTLP collector, to a file, or nowhere.

An endpoint that cannot be used is refused when the process starts. Later nothing that the exporter meets disturbs the
process: spans that cannot be sent are dropped.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kintsugi.errors import FailedPrecondition
from kintsugi.telemetry import tracing
from kintsugi.telemetry.log_events import LogEvent
from kintsugi.telemetry.logs import logger
from kintsugi.telemetry.trace_names import Attribute
from kintsugi.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

_FILE = "file:"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who the spans are from."""

    service: str
    instance: str


@contextmanager
def exported(trace_to: str, ratio: float, origin: Origin) -> Iterator[None]:
    """Traces the calls that this process serves, within the block. `trace_to` is '' (not at all), `http(s)://host:port`
    of an OTLP collector, or `file:PATH`."""
    if not trace_to:
        yield
        return
    # Only now: the SDK takes a tenth of a second to import.
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased  # noqa: PLC0415

    names = {Attribute.SERVICE: origin.service, Attribute.INSTANCE: origin.instance, Attribute.VERSION: VERSION}
    resource = Resource.create({name.value: value for name, value in names.items()})
    # What has no parent was drawn by ratio before a span is made: see tracing.begin_served.
    provider = TracerProvider(ParentBased(ALWAYS_ON), resource, shutdown_on_exit=False)
    with ExitStack() as closing:
        provider.add_span_processor(BatchSpanProcessor(_exporter(trace_to, closing)))
        closing.callback(provider.shutdown)
        closing.callback(tracing.record_to, None, 0.0)
        tracing.record_to(provider, ratio)
        logger("tracing").info(LogEvent.TRACES_EXPORTED, to=trace_to, ratio=ratio)
        yield


def _exporter(trace_to: str, closing: ExitStack) -> "SpanExporter":
    if trace_to.startswith(_FILE):
        return _to_file(Path(trace_to.removeprefix(_FILE)), closing)
    if not trace_to.startswith(("http://", "https://")):
        raise FailedPrecondition(f"trace_to is {trace_to}, must be http://HOST:PORT, https://HOST:PORT or file:PATH")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    except ImportError as error:
        raise FailedPrecondition(
            f"trace_to is {trace_to}, which needs the optional extra: pip install 'kintsugi-search[otlp]'"
        ) from error
    exporter: SpanExporter = OTLPSpanExporter(endpoint=trace_to, insecure=trace_to.startswith("http://"))
    return exporter


def _to_file(path: Path, closing: ExitStack) -> "SpanExporter":
    """One JSON object per line."""
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

    def line(span: "ReadableSpan") -> str:
        return f"{span.to_json(indent=None)}\n"

    try:
        file = closing.enter_context(path.open("a", encoding="utf-8"))
    except OSError as error:
        raise FailedPrecondition(f"trace_to is file:{path}, which cannot be written: {error}") from error
    return ConsoleSpanExporter(out=file, formatter=line)
