"""What is noted of every call that a server serves: its request id, its duration by status, and a span when it is traced.

Runs once per call on the event loop, so it costs a few microseconds: one pass over the metadata, one histogram whose
child is bound in advance, and no OpenTelemetry at all for a call that is not traced.
"""

import time
from collections.abc import Iterable
from typing import Any

from opentelemetry.trace import Span
from prometheus_client import Histogram

from kintsugi import telemetry
from kintsugi.telemetry import metric_names as names
from kintsugi.telemetry import metrics, tracing
from kintsugi.telemetry.trace_names import REQUEST_ID_KEY, TRACE_LINKS_KEY, TRACE_PARENT_KEY

OK = "OK"
CANCELLED = "CANCELLED"

_SECONDS = metrics.histogram(names.RPC_SECONDS)


class Method:
    """One method of a server, by its full name."""

    def __init__(self, full_name: str) -> None:
        self._name = full_name.lstrip("/")
        # Nobody looks for the traces of health checks and reflection.
        self._is_ours = self._name.startswith("kintsugi.")
        self._seconds: dict[str, Histogram] = {}

    def begin(self, metadata: Iterable[tuple[str, Any]] | None) -> "ServedCall":
        """Binds request id and span to the current task."""
        offered = parent = links = ""
        for key, value in metadata or ():
            if key == REQUEST_ID_KEY:
                offered = value
            elif key == TRACE_PARENT_KEY:
                parent = value
            elif key == TRACE_LINKS_KEY:
                links = value
        telemetry.bind_request_id(offered)
        span = tracing.begin_served(self._name, parent, links) if self._is_ours else None
        return ServedCall(self, span)

    def seconds(self, code: str) -> Histogram:
        found = self._seconds.get(code)
        if found is None:
            found = self._seconds[code] = _SECONDS.labels(self._name, code)
        return found


class ServedCall:
    """A call from its arrival to its end."""

    __slots__ = ("_method", "_span", "_started")

    def __init__(self, method: Method, span: Span | None) -> None:
        self._method = method
        self._span = span
        self._started = time.perf_counter()

    def end(self, code: str) -> None:
        self._method.seconds(code).observe(time.perf_counter() - self._started)
        if self._span is not None:
            tracing.end(self._span, code)
