"""The command that shows the cluster at a glance, once or again and again."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

import click
import msgspec
from rich.live import Live

from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, client_options, connect, json_option
from kintsugi.cli.health import judge
from kintsugi.cli.status_json import document
from kintsugi.cli.status_view import view
from kintsugi.errors import KintsugiError
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.status import ClusterStatus

_DEFAULT_WATCH_S = 2.0


@click.command(short_help="Show what runs where, and how far it is.")
@click.option("--collection", default="", type=COLLECTION, help="Only this collection.  [default: all]")
@click.option(
    "--watch",
    "every_s",
    is_flag=False,
    flag_value=_DEFAULT_WATCH_S,
    type=click.FloatRange(min=0.1),
    metavar="[SECONDS]",
    help="Show it again every so many seconds, 2 when not said, until Ctrl-C.",
)
@json_option("the status, with the schema of docs/status-json.md,")
@client_options
def status(collection: str, every_s: float | None, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> int:
    """Show what runs where, and how far it is. Works while Redis is down.

    The exit code tells the health: 0 ok, 3 degraded (all is answered, something is missing), 4 failing (some searches or
    writes are refused), 1 when no coordinator answers. With --watch it is that of the last look.

    \b
    kintsugi status
    kintsugi status --watch 5 --collection books
    kintsugi status --json | jq .health
    """  # noqa: D301 -- click's mark for lines that stay as they are
    with connect(addresses, timeout_s) as client:
        if every_s is not None:
            return _watch(client, collection, every_s, as_json=as_json)
        answer = client.status(collection)
    if as_json:
        output.show_json(document(answer, datetime.now(UTC)))
    else:
        output.console().print(view(answer))
    return judge(answer)[0].exit_code


def _watch(client: Client, collection: str, every_s: float, *, as_json: bool) -> int:
    """Looks until Ctrl-C; a cluster that does not answer is looked for again."""
    console, code = output.console(), 0
    live = Live(console=console, auto_refresh=False, screen=console.is_terminal and not as_json)
    around: AbstractContextManager[object] = nullcontext() if as_json or not console.is_terminal else live
    with around:
        for answer, message in looks(lambda: client.status(collection), every_s, time.sleep):
            if answer is None:
                output.complain("error", message)
                code = 1
                continue
            code = judge(answer)[0].exit_code
            if as_json:
                click.echo(msgspec.json.encode(document(answer, datetime.now(UTC))))
            elif console.is_terminal:
                live.update(view(answer), refresh=True)
            else:
                console.print(view(answer))
    return code


class looks:  # noqa: N801 -- used like a function
    """Iterates over (status, '') or (None, why not), with a pause between two, until Ctrl-C."""

    def __init__(self, ask: Callable[[], ClusterStatus], every_s: float, sleep: Callable[[float], None]) -> None:
        self._ask = ask
        self._every_s = every_s
        self._sleep = sleep
        self._first = True

    def __iter__(self) -> "looks":
        return self

    def __next__(self) -> tuple[ClusterStatus | None, str]:
        try:
            if not self._first:
                self._sleep(self._every_s)
            self._first = False
            return self._ask(), ""
        except KintsugiError as error:
            return None, error.message
        except KeyboardInterrupt as end:
            raise StopIteration from end
