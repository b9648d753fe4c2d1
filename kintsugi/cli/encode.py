"""The command that changes how a collection's vectors are held in memory, and shows how its replicas follow."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from kintsugi import limits
from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, Encoding, client_options, connect, json_option
from kintsugi.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from kintsugi.errors import DeadlineExceeded, NotFound
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.rollout import ReplicaProgress, Rollout, Step, rollout
from kintsugi.sdk.types import Collection

_LOOK_EVERY_S = 0.5
_RECORDED = "the change is recorded and goes on"

Show = Callable[[Rollout], None]


@click.command()
@click.argument("name", type=COLLECTION)
@click.option(
    "--encoding",
    required=True,
    type=Encoding(),
    help="auto, f32, f16, bf16, e4m3, i8, binary or recurrent-N, with +prefix-N or +pca-N behind it if wanted.",
)
@click.option(
    "--oversampling",
    type=click.FloatRange(limits.MIN_OVERSAMPLING, limits.MAX_OVERSAMPLING),
    help="Candidates per hit of its searches.  [default: the encoding's own]",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return when every replica serves it.")
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up waiting after so long; the replicas go on.  [default: never]",
)
@json_option("how each replica is")
@client_options
def encode(
    name: str,
    as_json: bool,
    addresses: tuple[str, ...],
    timeout_s: float,
    *,
    wait: bool,
    within_s: float | None,
    **wanted: Any,
) -> int:
    """Change how the vectors of a collection are held in memory, while searches go on.

    Every replica builds an index version beside the one it serves, one replica of a shard after the other, checks that it
    finds what exact search finds, and swaps it in. When a check refuses it, that replica keeps what it has: the reason is
    told, and the exit code is 1. Asking again tries again.

    \b
    kintsugi collection encode books --encoding i8
    kintsugi collection encode books --encoding binary --oversampling 20 --no-wait
    """  # noqa: D301 -- click's mark for lines that stay as they are
    with connect(addresses, timeout_s) as client:
        asked = client.encode_collection(name, **wanted)
        found = wait_for_rollout(client, asked, within_s) if wait else _look(client, asked)
    return tell_rollout(found, as_json=as_json)


def wait_for_rollout(client: Client, asked: Collection, within_s: float | None = None) -> Rollout:
    """Draws a progress bar per replica until each serves what was asked for or has refused it. `asked`: the answer to
    encode_collection."""
    with _bars() as show:
        return follow(lambda: _look(client, asked), show, within_s)


def follow(
    look: Callable[[], Rollout],
    show: Show,
    within_s: float | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Rollout:
    """Looks until every replica serves what is wanted or has refused it."""
    end = None if within_s is None else clock() + within_s
    while True:
        found = look()
        show(found)
        if found.done:
            return found
        if end is not None and clock() >= end:
            waiting = next(replica for replica in found.replicas if not replica.step.is_last)
            raise DeadlineExceeded(f"{_title(waiting)} is {waiting.step} after {within_s:g} s; {_RECORDED}")
        sleep(_LOOK_EVERY_S)


def _look(client: Client, asked: Collection) -> Rollout:
    found = rollout(client.status(asked.name), asked.name, asked.encoding_requests)
    if found is None:
        raise NotFound(f"there is no collection {asked.name} any more", reason="COLLECTION_NOT_FOUND")
    return found


def tell_rollout(found: Rollout, *, as_json: bool = False) -> int:
    """Says how each replica is, and returns the exit code."""
    if as_json:
        output.show_json(found)
    else:
        serving = sum(replica.step is Step.SERVING for replica in found.replicas)
        click.echo(f"collection {found.collection}: {serving} of {len(found.replicas)} replicas serve {found.encoding}")
        small = sum(replica.step is Step.TOO_SMALL for replica in found.replicas)
        if small:
            click.echo(f"{small} have too few vectors for it yet and hold them in full precision until there are more")
        for replica in found.refused:
            output.complain("refused", f"{_title(replica)} stays with {replica.encoding}: {replica.reason}")
    return EXIT_FAILED if found.refused else EXIT_DONE


def _title(replica: ReplicaProgress) -> str:
    return f"shard {replica.shard} on {replica.member}"


@contextmanager
def _bars() -> Iterator[Show]:
    """A progress bar per replica on stderr, when that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _found: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[step]}"))
    tasks: dict[tuple[int, str], TaskID] = {}
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:

        def show(found: Rollout) -> None:
            for replica in found.replicas:
                key = (replica.shard, replica.member)
                if key not in tasks:
                    tasks[key] = progress.add_task(_title(replica), total=1.0, step="")
                progress.update(tasks[key], completed=_part(replica), step=replica.step.value)

        yield show


def _part(replica: ReplicaProgress) -> float:
    if replica.step.is_last:
        return 1.0
    # A build that has added all vectors is still to be checked.
    return min(0.99, replica.vectors / replica.vectors_wanted) if replica.vectors_wanted else 0.0
