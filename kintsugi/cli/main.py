"""The command `kintsugi`: gathers the commands and turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Nobody sees a traceback unless KINTSUGI_TRACEBACK is set.
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, version

import click

from kintsugi.cli.cluster import init, recover, status
from kintsugi.cli.collection import collection
from kintsugi.cli.demo import demo
from kintsugi.cli.documents import import_, search
from kintsugi.cli.up import up
from kintsugi.errors import KintsugiError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
_DISTRIBUTION = "kintsugi-search"


def _version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `kintsugi up --shards 2 --replicas 2`, or see it all in `kintsugi demo`.",
)
@click.version_option(_version(), prog_name="kintsugi")
def cli() -> None:
    """A sharded vector search cluster that changes embedding models while it serves."""


for command in (up, demo, status, collection, import_, search, init, recover):
    cli.add_command(command)


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    try:
        code = cli.main(arguments, prog_name="kintsugi", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except KintsugiError as error:
        return _fail(error, error.message)
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not fail on flushing the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 -- the edge of the process
        return _fail(error, f"unexpected {type(error).__name__}: {error} (KINTSUGI_TRACEBACK=1 shows where)")
    return code if isinstance(code, int) else 0


def _fail(error: Exception, message: str) -> int:
    if os.environ.get("KINTSUGI_TRACEBACK"):
        raise error
    click.secho("error: ", fg="red", nl=False, err=True)
    click.echo(message, err=True)
    return EXIT_FAILED
