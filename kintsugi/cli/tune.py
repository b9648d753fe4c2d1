"""The command that finds out how a collection is held in memory best."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, Encoding, client_options, connect, json_option
from kintsugi.cli.encode import tell_rollout, wait_for_rollout
from kintsugi.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from kintsugi.sdk import progress
from kintsugi.tuning.front import Setting
from kintsugi.tuning.result import Tuning
from kintsugi.tuning.sizes import parse_bytes, show_bytes

_LEAST_SAMPLE = 1000


class Size(click.ParamType[int]):
    """An amount of memory."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(short_help="Measure encodings on a sample of a collection, and recommend one.")
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@click.option("--memory", type=Size(), metavar="SIZE",
              help="What the indexes of one copy of the collection may take, such as 2GB.  [default: any]")  # fmt: skip
@click.option("--recall", default=0.98, show_default=True, type=click.FloatRange(0, 1, min_open=True),
              help="The part of the true neighbours that must be found.")  # fmt: skip
@click.option("--throughput", default=0.25, show_default=True, type=click.FloatRange(0),
              help="Least throughput, as a part of that of f32.")  # fmt: skip
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 100), help="Hits per query.")
@click.option("--model", default="", help="The model whose vectors are measured.  [default: the collection's]")
@click.option("--sample", default=50_000, show_default=True, type=click.IntRange(_LEAST_SAMPLE),
              help="Documents that are measured; a smaller collection is measured whole.")  # fmt: skip
@click.option("--queries", default=500, show_default=True, type=click.IntRange(10), help="Queries that are measured.")
@click.option("--queries-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A .npy or .npz of real queries.  [default: documents, which are taken out of the sample]")  # fmt: skip
@click.option("--encoding", "encodings", multiple=True, type=Encoding(),
              help="Measure this one, beside f32; repeat it to name several.  [default: about a dozen]")  # fmt: skip
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the sample and the fits.")
@click.option("--all", "everything", is_flag=True, help="Show all settings, not only those that no other beats.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path),
              help="Draw memory against recall to this .svg, .png or .pdf; needs kintsugi-search[plots].")  # fmt: skip
@click.option("--apply", "apply_it", is_flag=True, help="Roll the recommended setting out, and wait for it.")
@json_option("all that was measured")
@client_options
def tune(
    name: str,
    as_json: bool,
    addresses: tuple[str, ...],
    timeout_s: float,
    *,
    everything: bool,
    plot_path: Path | None,
    apply_it: bool,
    **options: Any,
) -> int:
    """Find the cheapest way to hold COLLECTION in memory that still finds what it must.

    Documents are drawn from the collection, and indexes of them built and searched in this process, with the code of the
    shard servers: one per encoding, searched with several oversamplings. The table shows the settings that no other beats
    in memory, recall and throughput at once. The one that is recommended takes the least memory of those that meet what
    is asked for; when there is none, the exit code is 1, and what comes nearest is told.

    \b
    kintsugi tune books --memory 2GB --recall 0.98 --plot books.svg
    kintsugi tune books --recall 0.99 --queries-file queries.npy --apply
    """  # noqa: D301 -- click's mark for lines that stay as they are
    # Imported here because no other command needs the index libraries, which take their time.
    from kintsugi.tuning import plot, run  # noqa: PLC0415

    if plot_path is not None:
        plot.check(plot_path)
    with connect(addresses, timeout_s) as client:
        tuning = run.tune(client, name, run.Wanted(**options), _reading, _measuring)
        if plot_path is not None:
            plot.draw(tuning, plot_path)
        chosen = tuning.advice.chosen
        if not as_json:
            _show(tuning, tuning.settings if everything else tuning.front)
        rollout = None
        if chosen is not None and apply_it:
            asked = client.encode_collection(name, chosen.encoding, chosen.oversampling)
            rollout = wait_for_rollout(client, asked)
    if as_json:
        output.show_json({**tuning.as_json(), "rollout": rollout})
    elif rollout is not None:
        return tell_rollout(rollout)
    elif chosen is not None:
        click.echo(f"to roll it out: kintsugi collection encode {name} --encoding {chosen.encoding.name} "
                   f"--oversampling {chosen.oversampling:g}")  # fmt: skip
    if chosen is None:
        output.complain("nothing fits", tuning.sentence)
    refused = rollout is not None and bool(rollout.refused)
    return EXIT_FAILED if chosen is None or refused else EXIT_DONE


def _reading(total: int) -> AbstractContextManager[Callable[[int], None]]:
    return progress.bar("reading documents", total, None)


@contextmanager
def _measuring(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar over all vectors that are indexed, with the name of the encoding, when stderr is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _encoding, _done: None
        return
    columns = (TextColumn("measuring {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("", total=total)
        yield lambda encoding, done: bars.update(task, description=f"{encoding:<20}", advance=done)


def _show(tuning: Tuning, settings: list[Setting]) -> None:
    subject, console = tuning.subject, output.console()
    table = output.table("encoding", "over-\nsampling", "bytes per\nvector", "memory of\na copy", "mapped\nfiles",
                         f"recall@{subject.k}", "at worst", "throughput\nof f32", "build", "")  # fmt: skip
    for column in table.columns[1:-1]:
        column.justify = "right"
    for one in settings:
        chosen = one is tuning.advice.chosen
        table.add_row(
            one.encoding.name,
            f"{one.oversampling:g}",
            f"{one.memory_bytes:,.0f}",
            show_bytes(tuning.copy_bytes(one)),
            show_bytes(one.mapped_bytes * subject.vectors),
            f"{one.recall:.4f}",
            f"{one.recall_at_worst:.4f}" if subject.extrapolated else "",
            f"{one.throughput:.2f}",
            f"{one.build_s:.1f} s",
            "recommended" if chosen else "",
            style="bold" if chosen else None,
        )
    console.print(table)
    measured = f"measured on {subject.sampled:,} of {subject.vectors:,} vectors with {subject.queries:,} queries"
    click.echo(f"{measured} ({subject.queries_from}), seed {subject.seed}")
    if subject.extrapolated:
        click.echo("recalls are extrapolated to the whole collection; a larger --sample narrows what they are at worst")
    if tuning.advice.chosen is not None:
        click.echo(tuning.sentence)
