"""Traces: at most one span per hop (client, coordinator, shard server), with events in it for what took time.

Whether a call is traced is decided once: by the caller when it sends W3C trace context, else at the coordinator by a
ratio. Everybody behind follows, so a call that is not traced costs a comparison, and nothing travels with it. A message
that carries several traced calls is a child of the first and linked to the others.

The span of the current task is kept here, not in OpenTelemetry's context, whose attaching costs more than the rest.
Which exporter is used is export.py's business.
"""

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kintsugi.telemetry.logs import request_id
from kintsugi.telemetry.trace_names import REQUEST_ID_KEY, TRACE_LINKS_KEY, TRACE_PARENT_KEY, Attribute, SpanEvent
from kintsugi.version import VERSION

Metadata = tuple[tuple[str, str], ...]
Value = str | int | float

_INSTRUMENTATION = "kintsugi"
# More traced calls than this in one message are not linked: each link costs a header of 55 bytes.
MAX_LINKS = 32
_SAMPLED_FLAG = 1
_PROPAGATOR = TraceContextTextMapPropagator()

_span: ContextVar[Span | None] = ContextVar("kintsugi_span", default=None)
_links: ContextVar[tuple[SpanContext, ...]] = ContextVar("kintsugi_links", default=())
_callers: ContextVar[tuple[SpanContext, ...]] = ContextVar("kintsugi_callers", default=())


@dataclass(slots=True)
class _Recording:
    """How this process traces the calls that it serves. No tracer: not at all."""

    tracer: Tracer | None = None
    ratio: float = 0.0


_recording = _Recording()


def record_to(provider: TracerProvider | None, ratio: float) -> None:
    """From now on, spans of served calls go to the provider; `ratio` of those that come without trace context."""
    _recording.tracer = provider.get_tracer(_INSTRUMENTATION, VERSION) if provider is not None else None
    _recording.ratio = ratio


def begin_served(method: str, parent: str, links: str) -> Span | None:
    """The span of a call that this process begins to serve, None when it is not traced. `parent` and `links` are what
    its metadata said, '' for nothing. It becomes the span of the current task."""
    tracer = _recording.tracer
    if tracer is None:
        return None
    if parent:
        if not _is_sampled(parent):
            return None
        context = _PROPAGATOR.extract({TRACE_PARENT_KEY: parent}, Context())
    elif random.random() >= _recording.ratio:  # noqa: S311 -- a draw, not a secret
        return None
    else:
        context = Context()
    span = tracer.start_span(
        method, context, SpanKind.SERVER, _attributes(method), [Link(one) for one in _parse_links(links)]
    )
    _span.set(span)
    return span


class ClientCall:
    """The span of one call of the client library with all its attempts; its name is known with the first of them."""

    __slots__ = ("_started", "outer", "span")

    def __init__(self, provider: TracerProvider, outer: Span | None) -> None:
        parent = trace.get_current_span().get_span_context()
        links = [Link(caller) for caller in _callers.get() if caller != parent]
        tracer = provider.get_tracer(_INSTRUMENTATION, VERSION)
        self.span = tracer.start_span(_INSTRUMENTATION, kind=SpanKind.CLIENT, links=links)
        self.outer = outer
        self._started = False

    def attempt(self, method: str) -> None:
        if not self._started:
            self._started = True
            self.span.update_name(method)
            self.span.set_attributes(_attributes(method))
        else:
            self.span.add_event(SpanEvent.RETRY)


_client_call: ContextVar[ClientCall | None] = ContextVar("kintsugi_client_call", default=None)


def begin_call(provider: TracerProvider) -> ClientCall | None:
    """A span for a call that the client library makes, as a child of the application's current one. None unless the
    application configured a tracer provider."""
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    call = ClientCall(provider, _span.get())
    _client_call.set(call)
    _span.set(call.span)
    return call


def end_call(call: ClientCall, status: str) -> None:
    """Ends the span and gives the task back what it had before."""
    _client_call.set(None)
    _span.set(call.outer)
    end(call.span, status)


def caller() -> SpanContext | None:
    """The application's current span, when it is recorded."""
    span = trace.get_current_span()
    return span.get_span_context() if span.is_recording() else None


def link_callers(callers: Iterable[SpanContext | None]) -> None:
    """The next call of this task is made for all of these spans of the application; it is a child of one of them."""
    _callers.set(tuple(_each_once(callers))[:MAX_LINKS])


def end(span: Span, status: str) -> None:
    span.set_attribute(Attribute.STATUS, status)
    if status != "OK":
        span.set_status(trace.StatusCode.ERROR)
    span.end()


def client_metadata(method: str) -> Metadata:
    """What an attempt of the client library carries."""
    call = _client_call.get()
    if call is not None:
        call.attempt(method)
    return outgoing_metadata(method)


def outgoing_metadata(_method: str = "") -> Metadata:
    """What a call made by the current task carries to the next process."""
    current, span = request_id(), _span.get()
    metadata = ((REQUEST_ID_KEY, current),) if current else ()
    return metadata if span is None else (*metadata, *_trace_metadata(span))


def current_span() -> Span | None:
    """The span of the current task, when it is recorded."""
    span = _span.get()
    return span if span is not None and span.is_recording() else None


def carry(contexts: Sequence[SpanContext]) -> None:
    """Makes the current task work for several traced calls at once."""
    _span.set(trace.NonRecordingSpan(contexts[0]) if contexts else None)
    _links.set(tuple(contexts[1 : 1 + MAX_LINKS]))


def event(name: SpanEvent, started: float | None = None, **attributes: Value) -> None:
    """Notes an event in the span of the current task, if there is one. `started`: time.perf_counter() of its beginning."""
    span = current_span()
    if span is not None:
        add_event(span, name, started, time.perf_counter(), attributes)


def add_event(
    span: Span, name: SpanEvent, started: float | None, ended: float, attributes: Mapping[str, Value]
) -> None:
    """Notes what happened between two readings of time.perf_counter(). Attributes are given by the names of Attribute."""
    named: dict[str, Value] = {Attribute[key.upper()].value: value for key, value in attributes.items()}
    if started is not None:
        named[Attribute.DURATION.value] = round((ended - started) * 1000, 3)
    ago_ns = int((time.perf_counter() - ended) * 1e9)
    span.add_event(name.value, named, time.time_ns() - ago_ns)


class Stages:
    """The stages of the current call, one after the other. Costs next to nothing when the call is not traced."""

    __slots__ = ("_since", "_span")

    def __init__(self) -> None:
        self._span = current_span()
        self._since = time.perf_counter() if self._span is not None else 0.0

    def reached(self, name: SpanEvent, **attributes: Value) -> None:
        """Ends a stage that began when the one before ended."""
        if self._span is not None:
            now = time.perf_counter()
            add_event(self._span, name, self._since, now, attributes)
            self._since = now


def span_contexts(spans: Iterable[Span | None]) -> list[SpanContext]:
    """The contexts of those spans that there are, each once."""
    return _each_once(span.get_span_context() for span in spans if span is not None)


def _each_once(contexts: Iterable[SpanContext | None]) -> list[SpanContext]:
    # By their ids: contexts cannot be hashed.
    return list({(one.trace_id, one.span_id): one for one in contexts if one is not None}.values())


def _attributes(method: str) -> dict[str, Value]:
    return {
        Attribute.RPC_SYSTEM.value: "grpc",
        Attribute.RPC_METHOD.value: method,
        Attribute.REQUEST_ID.value: request_id(),
    }


def _trace_metadata(span: Span) -> Metadata:
    context = span.get_span_context()
    if not context.is_valid:
        return ()
    links = _links.get()
    parent = ((TRACE_PARENT_KEY, _trace_parent(context)),)
    return (*parent, (TRACE_LINKS_KEY, ",".join(map(_trace_parent, links)))) if links else parent


def _trace_parent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _parse_links(links: str) -> Iterable[SpanContext]:
    for link in links.split(",")[:MAX_LINKS] if links else ():
        found = trace.get_current_span(_PROPAGATOR.extract({TRACE_PARENT_KEY: link}, Context()))
        if found.get_span_context().is_valid:
            yield found.get_span_context()


def _is_sampled(parent: str) -> bool:
    """Whether a `traceparent` asks for recording. Anything malformed does not."""
    try:
        return bool(int(parent[53:55], 16) & _SAMPLED_FLAG)
    except ValueError:
        return False
