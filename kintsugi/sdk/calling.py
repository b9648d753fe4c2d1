"""What surrounds every call of the client: a request id, and a span when the application configured a tracer provider.

Both travel with all attempts of the call. An application that has a request id of its own binds it to its task with
`kintsugi.telemetry.bind_request_id`; it is then the one in the cluster's log lines.
"""

from types import TracebackType

from opentelemetry.trace import TracerProvider, get_tracer_provider

from kintsugi.errors import KintsugiError
from kintsugi.rpc.errors import code_name
from kintsugi.telemetry import bind_request_id, request_id, tracing, unbind_request_id

_UNKNOWN = "UNKNOWN"
_CANCELLED = "CANCELLED"


class Calling:
    """`with Calling(provider):` around the attempts of one call. `provider` None: the application's global one."""

    __slots__ = ("_bound", "_call", "_provider")

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._bound = False
        self._call: tracing.ClientCall | None = None

    def __enter__(self) -> None:
        self._bound = not request_id()
        if self._bound:
            bind_request_id(None)
        self._call = tracing.begin_call(self._provider or get_tracer_provider())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bound:
            unbind_request_id()
        if self._call is not None:
            tracing.end_call(self._call, _status(error))


def _status(error: BaseException | None) -> str:
    if error is None:
        return "OK"
    if isinstance(error, KintsugiError):
        return code_name(error)
    return _UNKNOWN if isinstance(error, Exception) else _CANCELLED
