"""The command that re-embeds the documents of a collection."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kintsugi import limits
from kintsugi.backfill import worker
from kintsugi.backfill.choosing import EmbedOptions, embedder_of
from kintsugi.backfill.embedder import F32Matrix
from kintsugi.backfill.worker import Worker, WorkerSettings
from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, client_options, connect, json_option, parse_id
from kintsugi.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from kintsugi.errors import InvalidArgument
from kintsugi.ids import DocId
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.progress import Rate
from kintsugi.sdk.types import Model
from kintsugi.sdk.upgrade_types import NextDocuments, PutVectorsResult


class ClientCluster:
    """The upgrade of one collection, by a client."""

    def __init__(self, client: Client, collection: str, model: str) -> None:
        self._client = client
        self._collection = collection
        self._model = model

    def pull(self, limit: int, lease_s: float, first: Sequence[DocId]) -> NextDocuments:
        return self._client.next_documents(self._collection, limit, lease_s=lease_s, first=list(first) or None)

    def put(
        self, ids: Sequence[DocId], versions: npt.NDArray[np.uint64], vectors: F32Matrix, request_id: str
    ) -> PutVectorsResult:
        return self._client.put_vectors(
            self._collection, self._model, list(ids), versions, vectors, request_id=request_id
        )


@click.command(short_help="Re-embed documents; any number of these may run at once.")
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@click.option(
    "--embed", required=True, metavar="HOW", help="A command, module:function, or an http address; see above."
)
@click.option("--model", default="", help="The model that HOW embeds with.  [default: the new one of the upgrade]")
@click.option("--batch", default=100, show_default=True, type=click.IntRange(1, limits.MAX_BATCH_ITEMS),
              help="Documents that are embedded at once.")  # fmt: skip
@click.option("--rate", default=0.0, type=click.FloatRange(0), metavar="PER_SECOND",
              help="Documents per second, at most.  [default: any]")  # fmt: skip
@click.option("--lease", "lease_s", default=120.0, show_default=True, metavar="SECONDS",
              type=click.FloatRange(limits.MIN_LEASE_S, limits.MAX_LEASE_S),
              help="For how long no other worker gets what this one has; longer than a batch takes.")  # fmt: skip
@click.option("--attempts", default=8, show_default=True, type=click.IntRange(1),
              help="How often something is tried that fails, with growing pauses.")  # fmt: skip
@click.option("--silence", "silence_s", default=120.0, show_default=True, metavar="SECONDS",
              type=click.FloatRange(0, min_open=True), help="After so long without an answer of HOW it has failed.")  # fmt: skip
@click.option("--api-model", default="", help="What the http service calls the model.  [default: its name here]")
@click.option("--api-key-env", "api_key_variable", default="", metavar="VARIABLE",
              help="The environment variable that holds the key of the http service.")  # fmt: skip
@click.option("--first", "first_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Ids, one per line, that are embedded before all others.")  # fmt: skip
@json_option("what was done")
@client_options
def backfill(
    name: str,
    as_json: bool,
    addresses: tuple[str, ...],
    timeout_s: float,
    *,
    model: str,
    first_file: Path | None,
    **options: Any,
) -> int:
    """Embed the documents of COLLECTION that lack a vector, the most searched for first, and put the vectors back.

    Ends when every document has one. After an interruption the same command goes on: nothing is remembered here. While the
    upgrade is paused it waits. The model's document prefix is put before each text.

    \b
    command          is started once. Reads {"id": 1, "text": "...", "attributes": {}} per line, and an empty line behind
                     each batch; answers each document with a line, a JSON array of numbers; flushes behind each batch
    module:function  of Python: a list of texts goes in, an n x d array comes out
    http address     a service with the embeddings API of OpenAI, such as http://localhost:8080/v1/embeddings

    \b
    kintsugi upgrade backfill books --embed 'python embed.py'
    kintsugi upgrade backfill books --embed my_models:embed --rate 200
    kintsugi upgrade backfill books --embed https://api.example.org/v1/embeddings --api-key-env API_KEY
    """  # noqa: D301 -- click's mark for lines that stay as they are
    how = EmbedOptions(options["embed"], options["silence_s"], options["api_model"], options["api_key_variable"])
    first = () if first_file is None else tuple(map(parse_id, first_file.read_text().split("\n")))
    settings = WorkerSettings(
        batch=options["batch"],
        rate=options["rate"],
        lease_s=options["lease_s"],
        attempts=options["attempts"],
        first=tuple(one for one in first if one != ""),
    )
    with connect(addresses, timeout_s) as client:
        embedded = _model(client, name, model)
        with closing(embedder_of(how, embedded.name)) as embedder, _bar(f"embedding {name}") as show:
            work = Worker(ClientCluster(client, name, embedded.name), embedded, embedder, settings, show)
            with _resumable(work):
                done = work.run()
    return _tell(name, embedded, done, as_json=as_json)


def _model(client: Client, name: str, wanted: str) -> Model:
    """The model whose vectors are made: dimension and prefix."""
    upgrade = client.upgrade_status(name).upgrade
    wanted = wanted or upgrade.new_model.name
    known = {one.name: one for one in (upgrade.new_model, *client.collection(name).models)}
    if wanted not in known:
        raise InvalidArgument("model", f"is {wanted}", f"must be one of {', '.join(sorted(known))}")
    return known[wanted]


def _tell(name: str, model: Model, done: worker.Progress, *, as_json: bool) -> int:
    if as_json:
        output.show_json(done)
    else:
        dropped = f", {done.stale:,} came too late" if done.stale else ""
        click.echo(f"embedded {done.written:,} documents of {name} with {model.name}{dropped}; {_rest(done)}")
    if done.textless:
        output.complain("left", f"{done.textless:,} documents have no text; a command of --embed gets them by id")
    return EXIT_FAILED if done.textless else EXIT_DONE


def _rest(done: worker.Progress) -> str:
    return f"{done.remaining:,} lack a vector" if done.remaining else "none lacks a vector"


@contextmanager
def _resumable(work: Worker) -> Iterator[None]:
    """Says after Ctrl-C that nothing has to be done twice."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nembedded {work.progress.written:,} documents; the same command goes on from here", err=True)
        raise


@contextmanager
def _bar(title: str) -> Iterator[Callable[[worker.Progress], None]]:
    """A progress bar on stderr, when that is a terminal. What other workers do moves it, too."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _progress: None
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")),
        *(TimeRemainingColumn(), TextColumn("{task.fields[waiting]}", style="yellow")),
    )
    rate = Rate()
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=None, rate="", waiting="")
        most = 0

        def show(progress: worker.Progress) -> None:
            nonlocal most
            most = max(most, progress.written + progress.remaining)
            bars.update(
                task,
                total=most or None,
                completed=most - progress.remaining,
                rate=rate.after(progress.written),
                waiting=output.plain(progress.waiting),
            )

        yield show
