"""The coordinator process: settings, logging, and app.serve until a signal."""

import functools
import sys

from coordinator.app import serve
from coordinator.settings import CoordinatorSettings
from kintsugi.rpc.server import run_process
from kintsugi.settings import load_or_exit
from kintsugi.telemetry import LogEvent, configure_logging, logger
from kintsugi.version import VERSION


def main() -> int:
    settings = load_or_exit(CoordinatorSettings, program="python -m coordinator")
    configure_logging(settings.log_format, settings.log_level, process="coordinator")
    logger("coordinator").info(LogEvent.PROCESS_STARTED, version=VERSION, data=str(settings.data))
    return run_process(functools.partial(serve, settings))


if __name__ == "__main__":
    sys.exit(main())
