"""What a process says about itself: log lines, and the names of all events in them.

Lines go to stderr, as JSON or for a console, with the request id of the call that caused them. An event is a constant
of LogEvent with fields, so that lines can be searched by machine. Metrics and traces will live here too.
"""

import logging
import re
import secrets
import sys
from enum import StrEnum
from typing import Any, TextIO, cast

import structlog
from structlog.contextvars import bind_contextvars, get_contextvars, merge_contextvars, unbind_contextvars

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID_FIELD = "request_id"
# Foreign request ids end up in logs: bounded, and nothing that could forge a line.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

Logger = structlog.typing.FilteringBoundLogger


class LogEvent(StrEnum):
    """Every event that Kintsugi logs."""

    PROCESS_STARTED = "process_started"
    PROCESS_STOPPING = "process_stopping"
    PROCESS_STOPPED = "process_stopped"
    PROCESS_FAILED = "process_failed"
    PROCESS_REFUSED = "process_refused"
    LIFECYCLE_CHANGED = "lifecycle_changed"
    RPC_LISTENING = "rpc_listening"
    RPC_FAILED = "rpc_failed"
    FOREIGN_LOG = "foreign_log"

    REGISTRY_AWAITED = "registry_awaited"
    REGISTRY_RESTORING = "registry_restoring"
    LOG_RECOVERED = "log_recovered"
    RECOVERY_POSTPONED = "recovery_postponed"

    REPLICA_PHASE = "replica_phase"
    REPLICA_FAILED = "replica_failed"
    REPLICA_REMOVED = "replica_removed"
    REPLICA_ORPHANED = "replica_orphaned"
    REPLAY_INTERRUPTED = "replay_interrupted"
    REPLAY_OUT_OF_STEP = "replay_out_of_step"
    TRIM_POSTPONED = "trim_postponed"
    BOOTSTRAP_STARTED = "bootstrap_started"
    DIVERGENT_TAIL_SAVED = "divergent_tail_saved"
    INDEX_REPORT_POSTPONED = "index_report_postponed"


def configure_logging(log_format: str, log_level: str, *, stream: TextIO | None = None, **fields: object) -> None:
    """Sets up logging for the process; `fields` stand in every line. Call once, before the first line."""
    level = logging.getLevelNamesMapping()[log_level.upper()]
    renderer: Any = structlog.processors.JSONRenderer(default=str)
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=(stream or sys.stderr).isatty())
    tracebacks = [structlog.processors.format_exc_info] if log_format == "json" else []

    def add_fields(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**fields, **event}

    structlog.configure(
        processors=[
            merge_contextvars,
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


def logger(component: str) -> Logger:
    """A logger whose lines carry the component's name."""
    return cast("Logger", structlog.get_logger(component=component))


def bind_request_id(offered: str | None) -> str:
    """Gives the current task a request id, the offered one if it is well-formed, and returns it."""
    request_id = offered if offered and _REQUEST_ID.fullmatch(offered) else secrets.token_hex(8)
    bind_contextvars(**{_REQUEST_ID_FIELD: request_id})
    return request_id


def unbind_request_id() -> None:
    unbind_contextvars(_REQUEST_ID_FIELD)


def request_id() -> str:
    """The request id of the current task, or ''."""
    return str(get_contextvars().get(_REQUEST_ID_FIELD, ""))


def request_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata that carries the request id of the current task to the next process."""
    current = request_id()
    return ((REQUEST_ID_KEY, current),) if current else ()
