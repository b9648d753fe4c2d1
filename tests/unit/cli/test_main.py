"""The command line fails in one line and with the right exit code."""

import socket

import pytest

from kintsugi.cli.connection import parse_id
from kintsugi.cli.main import cli, run


@pytest.fixture
def nobody():
    """An address where nobody listens, and nobody will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_help_lists_every_command(capsys):
    """A newcomer finds the way with --help alone."""
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in cli.commands.items():
        assert name in shown
        assert run([name, "--help"]) == 0
        assert command.help or command.short_help


def test_version_is_shown(capsys):
    """--version names the program."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("kintsugi, version ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["up", "--shards", "0"],
        ["collection", "create", "books"],
        ["import", "/does/not/exist.npy", "books"],
        ["recover", "--accept-loss", "books"],
        ["search", "books"],
        ["search", "books", "--vector", "1", "--like", "2"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    """Scripts can tell a typing error from a failure."""
    assert run(arguments) == 2
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["collection", "list"],
        ["collection", "delete", "books", "--yes"],
        ["search", "books", "--vector", "1,2"],
    ],
)
def test_unreachable_cluster_is_one_line_and_exit_code_1(arguments, nobody, capsys):
    """Nobody sees a traceback because a server is down."""
    assert run([*arguments, "--address", nobody, "--timeout", "0.5"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error


def test_init_without_redis_says_what_is_wrong(nobody, capsys):
    """A wrong URL is an error of ours, not of a library."""
    assert run(["init", "--redis", f"redis://{nobody}"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


async def test_init_creates_a_cluster_once(valkey, capsys):
    """Repeating it with the same id is harmless; another id is refused."""
    arguments = ["init", "--redis", valkey.url, "--namespace", "cli-init", "--cluster-id"]
    import asyncio

    assert await asyncio.to_thread(run, [*arguments, "first"]) == 0
    assert await asyncio.to_thread(run, [*arguments, "first"]) == 0
    assert await asyncio.to_thread(run, [*arguments, "second"]) == 1
    assert "cluster first" in capsys.readouterr().out


def test_ids_are_read_as_people_type_them():
    """42 and "42" are different documents."""
    assert parse_id("42") == 42
    assert parse_id('"42"') == "42"
    assert parse_id("os.path") == "os.path"
    assert parse_id("-1") == "-1"
