"""Asks a process over gRPC health v1 whether it serves: `python -m kintsugi.health [ADDRESS]`, for containers.

Exit codes are those that container engines know: 0 it serves, 1 it does not serve, does not know the service or does
not answer in time, 2 wrong usage. Every answer takes one call and one line. Loads neither SDK nor servers.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kintsugi.rpc.channels import CHANNEL_OPTIONS

DEFAULT_TIMEOUT_S = 2.0
EXIT_SERVING = 0
EXIT_NOT_SERVING = 1
LISTEN_VARIABLE = "KINTSUGI_LISTEN"

# Addresses that mean every interface to a listener, and what reaches it from the same machine.
_EVERY_INTERFACE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "localhost"}  # noqa: S104 -- nothing is bound here


@dataclass(frozen=True, slots=True)
class Health:
    """What a process said, or why it said nothing."""

    serving: bool
    message: str


def check(address: str, service: str = "", timeout_s: float = DEFAULT_TIMEOUT_S) -> Health:
    """Asks once. Silence within the timeout and refusals are answers too: not serving."""
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
            )
        except grpc.RpcError as error:
            return Health(serving=False, message=f"{error.code().name}: {error.details()}")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Health(serving=answer.status == health_pb2.HealthCheckResponse.SERVING, message=status)


def reachable(listen: str) -> str:
    """The address under which a process that listens there is reached from the same machine."""
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or port == "0":
        raise ValueError(f"{listen!r}, must be HOST:PORT with a port above 0")
    return f"{_EVERY_INTERFACE.get(host, host)}:{port}"


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Asks what the arguments say, prints one line, and returns the exit code; SystemExit(2) on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi.health", description="Ask whether a process serves.")
    parser.add_argument("address", nargs="?", default="", help=f"HOST:PORT (default: where {LISTEN_VARIABLE} listens)")
    parser.add_argument("--service", default="", help="the service to ask for (default: the process as a whole)")
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_S, metavar="SECONDS", help="(default: 2)")
    asked = parser.parse_args(arguments)
    try:
        address = reachable(asked.address or environment.get(LISTEN_VARIABLE, ""))
    except ValueError as error:
        parser.error(f"address is {error}")
    if not asked.timeout > 0:
        parser.error(f"--timeout is {asked.timeout:g}, must be above 0")
    health = check(address, asked.service, asked.timeout)
    sys.stdout.write(f"{' '.join(filter(None, [address, asked.service]))}: {health.message}\n")
    return EXIT_SERVING if health.serving else EXIT_NOT_SERVING


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.environ))
