"""What a process says about itself: log lines (logs), traces (tracing), metrics (metrics).

Every name in them stands in log_events, trace_names and metric_names, and in docs/telemetry.md, which is made from them.
Only what every module needs is imported here.
"""

from kintsugi.telemetry.log_events import LogEvent
from kintsugi.telemetry.logs import (
    bind_request_id,
    bind_request_ids,
    configure_logging,
    logger,
    new_request_id,
    request_id,
    unbind_request_id,
)
from kintsugi.telemetry.trace_names import REQUEST_ID_KEY

__all__ = [
    "REQUEST_ID_KEY",
    "LogEvent",
    "bind_request_id",
    "bind_request_ids",
    "configure_logging",
    "logger",
    "new_request_id",
    "request_id",
    "unbind_request_id",
]
