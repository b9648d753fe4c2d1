"""The health command against real servers, and what it says of those that are not there."""

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from kintsugi import health
from kintsugi.internal.v1.shard_pb2 import DESCRIPTOR
from kintsugi.internal.v1.shard_pb2_grpc import ShardServicer, add_ShardServicer_to_server
from kintsugi.rpc.server import LIVENESS, RpcServer

SERVICE = DESCRIPTOR.services_by_name["Shard"].full_name


@pytest.fixture
async def server():
    """A server that does not serve yet."""
    server = RpcServer("127.0.0.1:0")
    server.add(add_ShardServicer_to_server, ShardServicer())
    async with server:
        yield server


@pytest.fixture
def ask(server):
    """Runs the command in a thread, as a process beside the server would."""

    async def run(*arguments):
        return await asyncio.to_thread(health.run, [server.address, *arguments], {})

    return run


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_serving_process_is_healthy(server, ask, service, capsys):
    """Exit code 0 for the process as a whole and for its service."""
    await server.set_serving(serving=True)
    assert await ask("--service", service) == health.EXIT_SERVING
    assert capsys.readouterr().out.endswith(": SERVING\n")


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_process_that_replays_is_not_healthy(ask, service, capsys):
    """Exit code 1 while it does not serve, and the line says so."""
    assert await ask("--service", service) == health.EXIT_NOT_SERVING
    assert capsys.readouterr().out.endswith(": NOT_SERVING\n")


async def test_process_that_replays_is_alive(server, ask):
    """Liveness holds whether the process serves or not, so that nobody kills it for replaying."""
    assert await ask("--service", LIVENESS) == health.EXIT_SERVING
    await server.set_serving(serving=True)
    await server.set_serving(serving=False)
    assert await ask("--service", LIVENESS) == health.EXIT_SERVING


async def test_unknown_service_is_not_healthy(ask, capsys):
    """A misspelt service is told apart from one that does not serve."""
    assert await ask("--service", "kintsugi.v1.Nothing") == health.EXIT_NOT_SERVING
    assert "NOT_FOUND" in capsys.readouterr().out


def test_nobody_there_is_not_healthy(capsys):
    """A refused connection is exit code 1 and one line, no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert health.run([f"127.0.0.1:{taken.getsockname()[1]}"], {}) == health.EXIT_NOT_SERVING
    assert capsys.readouterr().out.count("\n") == 1


def test_silence_ends_at_the_timeout(capsys):
    """A process that hangs accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert health.run([address, "--timeout", "0.2"], {}) == health.EXIT_NOT_SERVING
    assert "DEADLINE_EXCEEDED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("listen", "address"),
    [("0.0.0.0:7700", "127.0.0.1:7700"), (":7700", "127.0.0.1:7700"), ("[::]:7", "localhost:7"), ("a:7", "a:7")],
)
def test_listen_address_is_turned_into_one_that_can_be_reached(listen, address):
    """Nobody can connect to every interface."""
    assert health.reachable(listen) == address


@pytest.mark.parametrize("arguments", [["nowhere"], ["host:0"], ["host:port"], [], ["host:1", "--timeout", "0"]])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    """A mistyped health check must not look like a sick process."""
    with pytest.raises(SystemExit) as ended:
        health.run(arguments, {})
    assert ended.value.code == 2
    assert "must be" in capsys.readouterr().err


async def test_command_finds_the_process_by_its_listen_variable(server):
    """In an image, the health check asks whatever the process was told to listen on."""
    await server.set_serving(serving=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kintsugi.health"),
        env={**os.environ, health.LISTEN_VARIABLE: f"0.0.0.0:{server.port}"},
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (health.EXIT_SERVING, f"127.0.0.1:{server.port}: SERVING\n")
