"""The command that plans an upgrade: measures on a sample, says what it found, registers it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, client_options, connect
from kintsugi.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from kintsugi.cli.upgrade_view import sentence
from kintsugi.durable import write_file
from kintsugi.errors import InvalidArgument
from kintsugi.limits import MAX_DIMENSION
from kintsugi.metrics import Metric
from kintsugi.sdk.types import Model
from kintsugi.sdk.upgrade_types import UpgradePlan

if TYPE_CHECKING:
    from kintsugi.projections.kit import Kit

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, path_type=Path)
_PART = click.FloatRange(0, 1, min_open=True)


@click.command(short_help="Measure on a sample how to upgrade, and register that.")
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@click.option("--model", required=True, help="Name of the new model.")
@click.option("--dimension", required=True, type=click.IntRange(1, MAX_DIMENSION), help="Elements of its vectors.")
@click.option(
    "--sample", "sample_file", required=True, type=_FILE, help="A .npz of documents by both models; see above."
)
@click.option("--relevance", "relevance_file", type=_FILE,
              help="A .json with a list per query: the places in the sample of the documents that answer it.")  # fmt: skip
@click.option("--revision", default="", help="Revision of the new model, such as a commit.")
@click.option("--query-prefix", default="", help="What the new model wants before each query text.")
@click.option("--document-prefix", default="", help="What the new model wants before each document text.")
@click.option("--min-migrated", type=_PART, help="Part of the documents to re-embed before cut-over.  [default: 0.99]")
@click.option("--min-recall", type=_PART, help="Recall that the new index must have before cut-over.  [default: 0.95]")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what is held out, and of the fits."
)
@click.option("--force", is_flag=True, help="Register it although the report refuses it.")
@click.option("--dry-run", is_flag=True, help="Measure only, register nothing.")
@click.option("--json", "json_file", type=_OUT, metavar="FILE", help="Write the report to this file as JSON.")
@click.option("--plot", "plot_file", type=_OUT, metavar="FILE",
              help="Draw the report to this .svg, .png or .pdf; needs kintsugi-search[plots].")  # fmt: skip
@client_options
def plan(
    name: str,
    addresses: tuple[str, ...],
    timeout_s: float,
    *,
    sample_file: Path,
    relevance_file: Path | None,
    force: bool,
    dry_run: bool,
    **options: Any,
) -> int:
    """Find the best way to move COLLECTION to another model, and register it. Nothing changes before `start`.

    The sample holds documents, at least 200 and better some thousands, embedded with both models, and queries if there are
    any. Projections between the models are fitted on a part of it and measured on the rest. A new model that retrieves
    worse is refused, and so are pairs that do not belong together; then the exit code is 1.

    \b
    old_documents, new_documents  n x s and n x t: the same documents in the same order
    old_queries, new_queries      optional; likewise
    relevance.json                optional: [[3, 17], [5], ...], places of documents, one list per query

    \b
    kintsugi upgrade plan books --model m2 --dimension 768 --sample pairs.npz
    kintsugi upgrade plan books --model m2 --dimension 768 --sample pairs.npz --relevance judged.json --plot plan.svg
    """  # noqa: D301 -- click's mark for lines that stay as they are
    # Imported here because no other command needs them, and they take their time.
    from kintsugi.projections import findings, kit, plot  # noqa: PLC0415
    from kintsugi.projections.sample_file import read_sample  # noqa: PLC0415
    from kintsugi.tuning.plot import check  # noqa: PLC0415

    if options["plot_file"] is not None:
        check(options["plot_file"])
    words = {word: options[word] for word in ("revision", "query_prefix", "document_prefix")}
    model = Model(options["model"], options["dimension"], **words)
    with connect(addresses, timeout_s) as client:
        collection = client.collection(name)
        serving = next(one for one in collection.models if one.name == collection.serving_model)
        sample = read_sample(sample_file, relevance_file, Metric(collection.metric), serving.dimension, model.dimension)
        with _told() as told:
            try:
                made = kit.kit(sample, force=force, seed=options["seed"], progress=told)
            except ValueError as error:
                raise InvalidArgument("sample", str(error)) from error
        click.echo(findings.table(made.findings))
        if options["json_file"] is not None:
            write_file(options["json_file"], made.report_json)
        if options["plot_file"] is not None:
            plot.draw(made.findings, options["plot_file"])
        if dry_run or (made.refused and not force):
            if made.refused:
                output.complain(
                    "refused", "nothing is registered; with --force only the cluster's own checks can refuse it"
                )
            return EXIT_FAILED if made.refused else EXIT_DONE
        registered = client.upgrade_plan(name, _plan_of(made, model, options), force=force)
    click.echo(f"\n{sentence(name, registered)}\nto begin: kintsugi upgrade start {name}")
    return EXIT_DONE


def _plan_of(made: "Kit", model: Model, options: dict[str, Any]) -> UpgradePlan:
    return UpgradePlan(
        new_model=model,
        strategy=made.strategy,
        calibration=made.calibration,
        bridge=made.bridge,
        gallery_map=made.gallery_map,
        reverse=made.reverse,
        anchors=made.anchors,
        report=made.report_json,
        refused=made.refused,
        uncertainty=made.uncertainty,
        min_migrated=options["min_migrated"],
        min_recall=options["min_recall"],
    )


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """What is being fitted and measured, on stderr when that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _what: None
        return
    with console.status("measuring") as status:
        yield lambda what: status.update(f"measuring: {what}")
