"""The command `kintsugi`: gathers the commands and turns what goes wrong into one line and an exit code.

Nobody sees a traceback unless KINTSUGI_TRACEBACK is set. Exit codes: exit_codes.py.
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, version

import click

from kintsugi.cli import output
from kintsugi.cli.cluster import init, recover
from kintsugi.cli.collection import collection
from kintsugi.cli.completion import COMPLETE_VARIABLE, completion
from kintsugi.cli.demo import demo
from kintsugi.cli.doctor import doctor
from kintsugi.cli.documents import count, delete
from kintsugi.cli.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from kintsugi.cli.search import search
from kintsugi.cli.status import status
from kintsugi.cli.transfer import export, import_
from kintsugi.cli.tune import tune
from kintsugi.cli.up import up
from kintsugi.cli.upgrade import upgrade
from kintsugi.cli.verify import verify
from kintsugi.errors import KintsugiError

_DISTRIBUTION = "kintsugi-search"


def _version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `kintsugi up --shards 2 --replicas 2`, or see it all in `kintsugi demo`. Exit codes: 0 done, "
    "1 failed, 2 wrong usage, 130 interrupted; `kintsugi status` has two of its own.",
)
@click.version_option(_version(), prog_name="kintsugi")
def cli() -> None:
    """A sharded vector search cluster that changes embedding models while it serves."""


for command in (
    up,
    demo,
    status,
    doctor,
    collection,
    import_,
    export,
    search,
    count,
    delete,
    tune,
    upgrade,
    verify,
    init,
    recover,
    completion,
):
    cli.add_command(command)


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    try:
        code = cli.main(arguments, prog_name="kintsugi", complete_var=COMPLETE_VARIABLE, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # click raises Abort for a "no" as well as for Ctrl-C.
        if isinstance(error, click.Abort) and not isinstance(error.__cause__, KeyboardInterrupt):
            output.complain("aborted", "nothing was done")
            return EXIT_FAILED
        output.complain("interrupted", "the command did not end")
        return EXIT_INTERRUPTED
    except KintsugiError as error:
        return _fail(error, f"{error.message}{_hint(error)}")
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not fail on flushing the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 -- the edge of the process
        return _fail(error, f"unexpected {type(error).__name__}: {error} (KINTSUGI_TRACEBACK=1 shows where)")
    return code if isinstance(code, int) else 0


def _hint(error: KintsugiError) -> str:
    """What to try when nobody is there."""
    if error.reason == "COORDINATOR_UNREACHABLE":
        return "; start a cluster with `kintsugi up`, or name another coordinator with --address"
    return ""


def _fail(error: Exception, message: str) -> int:
    if os.environ.get("KINTSUGI_TRACEBACK"):
        raise error
    output.complain("error", message)
    return EXIT_FAILED
