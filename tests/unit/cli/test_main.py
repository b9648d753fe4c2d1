"""The command line fails in one line and with the right exit code."""

import os
import pty
import socket
import subprocess
import sys

import click
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
        ["search", "books", "--text", "whales"],
        ["status", "--address", "nonsense"],
        ["completion", "csh"],
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
        ["export", "books", "out.npz"],
        ["recover"],
    ],
)
def test_unreachable_cluster_is_one_line_and_exit_code_1(arguments, nobody, capsys):
    """Nobody sees a traceback because a server is down."""
    assert run([*arguments, "--address", nobody, "--timeout", "0.5"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: the connection to the coordinator at {nobody} failed: Connection refused; start")
    assert error.count("\n") == 1


def test_addresses_come_from_the_environment(nobody, capsys, monkeypatch):
    """KINTSUGI_ADDRESS names one coordinator, or several between commas."""
    monkeypatch.setenv("KINTSUGI_ADDRESS", f"{nobody},{nobody}")
    assert run(["status", "--timeout", "0.3"]) == 1
    assert nobody in capsys.readouterr().err
    monkeypatch.setenv("KINTSUGI_ADDRESS", "nonsense")
    assert run(["status"]) == 2


def test_a_no_is_a_failure_and_an_interruption_has_its_own_code(capsys, monkeypatch):
    """Scripts can tell "was not wanted" from "was stopped"."""

    @cli.command("interrupted")
    def interrupted():
        raise KeyboardInterrupt

    @cli.command("refused")
    def refused():
        raise click.Abort

    try:
        assert run(["interrupted"]) == 130
        assert run(["refused"]) == 1
    finally:
        del cli.commands["interrupted"], cli.commands["refused"]


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o nosort"), ("zsh", "#compdef"), ("fish", "complete ")]
)
def test_completion_is_a_script_of_that_shell(shell, mark, capsys):
    """What is printed can be sourced, and asks this program for words."""
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert mark in script
    assert "_KINTSUGI_COMPLETE" in script


def kintsugi(*arguments, **environment):
    """Runs the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "kintsugi.cli", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_shells_get_words_to_complete():
    """TAB after "kintsugi coll" offers the command; a cluster that is away costs nothing but the names."""
    asked = {"COMP_WORDS": "kintsugi coll", "COMP_CWORD": "1", "_KINTSUGI_COMPLETE": "bash_complete"}
    assert kintsugi(**asked).stdout.split() == ["plain,collection"]
    asked["COMP_WORDS"], asked["COMP_CWORD"] = "kintsugi collection describe b", "3"
    done = kintsugi(**asked, KINTSUGI_ADDRESS="127.0.0.1:1")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_nobody_reading_is_no_traceback():
    """`kintsugi ... | head -1` ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nowhere:
        done = subprocess.run(
            [sys.executable, "-m", "kintsugi.cli", "completion", "zsh"],
            stdout=nowhere, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_colours_are_for_terminals_only(environment):
    """Neither a pipe nor anybody who sets NO_COLOR gets escape sequences; a terminal does."""
    piped = kintsugi("status", "--address", "127.0.0.1:1", "--timeout", "0.2", **environment)
    assert "\x1b" not in piped.stdout + piped.stderr
    keeper, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "kintsugi.cli", "status", "--address", "127.0.0.1:1", "--timeout", "0.2"],
        env={**os.environ, **environment}, stdout=terminal, stderr=terminal, check=False,
    )  # fmt: skip
    os.close(terminal)
    shown = os.read(keeper, 4096)
    os.close(keeper)
    assert (b"\x1b[31merror" in shown) == (not environment)


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
