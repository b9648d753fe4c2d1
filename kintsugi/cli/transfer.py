"""The commands that carry documents between files and collections: import and export."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, client_options, connect, json_option
from kintsugi.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from kintsugi.limits import MAX_BATCH_ITEMS
from kintsugi.sdk.bulk import DEFAULT_BATCH
from kintsugi.sdk.importing import DEFAULT_MAX_REFUSED

# An import may wait for a cluster that recovers; a call of --timeout may not.
_STALL_S = 60.0
_RESTART_HELP = "Forget an earlier run of it that was interrupted, instead of going on."


@click.command("import", short_help="Import documents from a file; goes on after an interruption.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("collection", type=COLLECTION)
@click.option("--model", default="", help="The model that made the vectors.  [default: the collection's]")
@click.option("--batch", default=DEFAULT_BATCH, show_default=True, type=click.IntRange(1, MAX_BATCH_ITEMS),
              help="Documents per message.")  # fmt: skip
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path),
              help="Remember here how far the import is.  [default: beside FILE]")  # fmt: skip
@click.option("--rejects", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the items that are refused here.  [default: beside FILE]")  # fmt: skip
@click.option("--max-refused", default=DEFAULT_MAX_REFUSED, show_default=True, type=click.IntRange(0),
              help="Give up when more items are refused.")  # fmt: skip
@click.option("--restart", is_flag=True, help=_RESTART_HELP)
@json_option("the result")
@client_options
def import_(
    file: Path, collection: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float, **options: Any
) -> int:
    """Import documents from FILE into COLLECTION; existing ones are replaced.

    After an interruption, by Ctrl-C or anything else, the same command goes on where it was and writes nothing twice.
    Items that are refused are written to a file, with their line or row and the reason; then the exit code is 1.

    \b
    .npy      n x d numbers; ids are 0 to n-1, or those of NAME.ids.npy
    .npz      `vectors` (n x d), and optionally `ids`, `attributes` (JSON as strings) and `texts`
    .jsonl    per line {"id": 1, "vector": [...], "attributes": {...}, "text": "..."}
    .parquet  columns id, vector, and optionally attributes and text; needs kintsugi-search[parquet]

    \b
    kintsugi import vectors.npy books
    kintsugi import books.parquet books --batch 200 --state /var/tmp/books.json
    """  # noqa: D301 -- click's mark for lines that stay as they are
    with _resumable(), connect(addresses, timeout_s) as client:
        result = client.bulk_import(collection, file, timeout_s=max(timeout_s, _STALL_S), **options)
    if as_json:
        told = {"items": result.items, "applied": result.applied, "refused": result.refused,
                "resumed_at": result.resumed_at, "rejects": str(result.rejects) if result.rejects else None,
                "elapsed_s": result.elapsed_s, "token": result.token.hex()}  # fmt: skip
        output.show_json(told)
    else:
        click.echo(f"imported {result.applied:,} of {result.items:,} documents into {collection}"
                   f" {_pace(result.items - result.resumed_at, result.elapsed_s)}")  # fmt: skip
    if result.refused:
        output.complain("refused", f"{result.refused:,} items, see {result.rejects}")
    return EXIT_FAILED if result.refused else EXIT_DONE


@click.command("export", short_help="Export a collection to a file; goes on after an interruption.")
@click.argument("collection", type=COLLECTION)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", default="", help="The model whose vectors are exported.  [default: the collection's]")
@click.option("--attributes/--no-attributes", default=True, help="With or without attributes.  [default: with]")
@click.option("--text/--no-text", default=True, help="With or without texts.  [default: with]")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path),
              help="Remember here how far the export is.  [default: beside FILE]")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace FILE when it is there.")
@click.option("--restart", is_flag=True, help=_RESTART_HELP)
@json_option("the result")
@client_options
def export(
    collection: str, file: Path, as_json: bool, addresses: tuple[str, ...], timeout_s: float, **options: Any
) -> None:
    """Export all documents of COLLECTION to FILE, in the order of their ids.

    The suffix says the format: .npy (vectors, and the ids in NAME.ids.npy), .npz, .jsonl or .parquet, as `kintsugi
    import` reads them. FILE appears when it is complete. After an interruption the same command goes on. It is no
    snapshot: what is written meanwhile may be in it or not.

    \b
    kintsugi export books books.npz
    kintsugi export books books.jsonl --no-text --overwrite
    """  # noqa: D301 -- click's mark for lines that stay as they are
    with _resumable(), connect(addresses, timeout_s) as client:
        result = client.bulk_export(collection, file, **options)
    if as_json:
        told = {"files": [str(path) for path in result.files], "documents": result.documents,
                "skipped": result.skipped, "resumed_at": result.resumed_at, "elapsed_s": result.elapsed_s}  # fmt: skip
        output.show_json(told)
        return
    pace = _pace(result.documents - result.resumed_at, result.elapsed_s)
    click.echo(f"exported {result.documents:,} documents to {', '.join(map(str, result.files))} {pace}")
    if result.skipped:
        output.complain("skipped", f"{result.skipped:,} documents without a vector of the model")


@contextmanager
def _resumable() -> Iterator[None]:
    """Says after Ctrl-C that nothing has to be done twice."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nthe same command goes on from here", err=True)
        raise


def _pace(items: int, elapsed_s: float) -> str:
    return f"in {elapsed_s:.1f} s ({items / max(elapsed_s, 1e-9):,.0f}/s)"
