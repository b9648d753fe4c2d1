"""Log lines of a process, and the request ids in them.

Lines go to stderr, as JSON or for a console, with the request id of the call that caused them. An event is a constant
of LogEvent with fields, so that lines can be searched by machine. The request id belongs to the current task and travels
in metadata; work done for several calls at once has the ids of all of them, separated by commas. The client library has
request ids, too, and does not log: structlog, which brings much along, is imported by the first logger.
"""

import logging
import random
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO, cast

from kintsugi.telemetry.log_events import LogEvent

_REQUEST_ID_FIELD = "request_id"
# Foreign request ids end up in logs: bounded, and nothing that could forge a line.
_REQUEST_IDS = re.compile(r"[A-Za-z0-9._:-]{1,64}(?:,[A-Za-z0-9._:-]{1,64}){0,255}")
# structlog's own variables would be looked up one by one for every call.
_current: ContextVar[str] = ContextVar("kintsugi_request_id", default="")

if TYPE_CHECKING:
    import structlog

    Logger = structlog.typing.FilteringBoundLogger


def configure_logging(log_format: str, log_level: str, *, stream: TextIO | None = None, **fields: object) -> None:
    """Sets up logging for the process; `fields` stand in every line. Call once, before the first line."""
    import structlog  # noqa: PLC0415

    level = logging.getLevelNamesMapping()[log_level.upper()]
    renderer: Any = structlog.processors.JSONRenderer(default=str)
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=(stream or sys.stderr).isatty())
    tracebacks = [structlog.processors.format_exc_info] if log_format == "json" else []

    def add_fields(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        current = {_REQUEST_ID_FIELD: _current.get()} if _current.get() else {}
        return {**fields, **current, **event}

    structlog.configure(
        processors=[
            add_fields,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
    )
    logging.basicConfig(handlers=[_ForeignHandler()], level=max(level, logging.WARNING), force=True)


class _ForeignHandler(logging.Handler):
    """Takes in what libraries log through the standard library."""

    def emit(self, record: logging.LogRecord) -> None:
        logger(record.name).log(
            record.levelno, LogEvent.FOREIGN_LOG, message=record.getMessage(), exc_info=record.exc_info
        )


def logger(component: str) -> "Logger":
    """A logger whose lines carry the component's name."""
    import structlog  # noqa: PLC0415

    return cast("Logger", structlog.get_logger(component=component))


def new_request_id() -> str:
    """Unique enough to find a call again; not a secret."""
    return f"{random.getrandbits(64):016x}"


def bind_request_id(offered: str | None) -> str:
    """Gives the current task a request id, the offered one if it is well-formed, and returns it."""
    request_id = offered if offered and _REQUEST_IDS.fullmatch(offered) else new_request_id()
    _current.set(request_id)
    return request_id


def bind_request_ids(several: Iterable[str]) -> None:
    """Makes the current task work for several calls at once."""
    _current.set(",".join(dict.fromkeys(filter(None, several))))


def unbind_request_id() -> None:
    _current.set("")


def request_id() -> str:
    """The request id of the current task, or ''."""
    return _current.get()
