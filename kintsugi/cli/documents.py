"""Commands about documents: import and search."""

import dataclasses
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy.typing as npt

from kintsugi.cli import tables
from kintsugi.cli.connection import client_options, connect, parse_id
from kintsugi.cli.vectors import parse_vector, read
from kintsugi.errors import InvalidArgument, NotFound
from kintsugi.limits import DEFAULT_K, MAX_BATCH_ITEMS, MAX_K
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.types import BulkResult, SearchResult

_SHOWN_PROBLEMS = 5
_SHOWN_CHARACTERS = 100


@click.command("import", short_help="Import documents from a .npy, .npz or .jsonl file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("collection")
@click.option("--model", default="", help="The model that made the vectors.  [default: the collection's]")
@click.option(
    "--batch", default=500, show_default=True, type=click.IntRange(1, MAX_BATCH_ITEMS), help="Documents per message."
)
@client_options
def import_(file: Path, collection: str, model: str, batch: int, addresses: tuple[str, ...], timeout_s: float) -> int:
    """Import documents from FILE into COLLECTION; existing ones are replaced.

    \b
    .npy    n x d numbers; ids are 0 to n-1
    .npz    `vectors` (n x d) and optionally `ids`
    .jsonl  per line {"id": 1, "vector": [...], "attributes": {...}, "text": "..."}
    """  # noqa: D301 -- click's mark for lines that stay as they are
    applied, items = 0, 0
    with connect(addresses, timeout_s) as client:
        client.collection(collection)  # a wrong name is told before the file is read
        for part in read(file):
            result = client.bulk_upsert(
                collection,
                part.ids,
                part.vectors,
                attributes=part.attributes,
                texts=part.texts,
                model=model,
                batch=batch,
            )
            applied, items = applied + result.applied, items + result.items
            _show_problems(result)
    click.echo(f"imported {applied:,} of {items:,} documents into {collection}")
    return 0 if applied == items else 1


def _show_problems(result: BulkResult) -> None:
    for item in result.unapplied[:_SHOWN_PROBLEMS]:
        click.echo(f"document {item.id!r} {item.outcome.value}: {item.message}", err=True)
    if len(result.unapplied) > _SHOWN_PROBLEMS:
        click.echo(f"... and {len(result.unapplied) - _SHOWN_PROBLEMS:,} more", err=True)


@click.command(short_help="Search a collection with one query.")
@click.argument("collection")
@click.option("--vector", metavar="NUMBERS", help='The query, such as "0.1,0.2,0.3".')
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Take the query from a .npy file."
)
@click.option("--row", default=0, show_default=True, type=click.IntRange(0), help="Which row of the file.")
@click.option("--like", metavar="ID", help="Find what is like this document; '\"42\"' is the string, 42 the number.")
@click.option("-k", default=DEFAULT_K, show_default=True, type=click.IntRange(1, MAX_K), help="Hits wanted.")
@click.option("--exact", is_flag=True, help="Compare with every document instead of using the index.")
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 1, min_open=True),
    help="Fraction of shards that must answer.  [default: 1]",
)
@click.option("--model", default="", help="The model of the query.  [default: the collection's]")
@click.option("--json", "as_json", is_flag=True, help="Hits and coverage as JSON.")
@client_options
def search(
    collection: str, k: int, as_json: bool, addresses: tuple[str, ...], timeout_s: float, **options: Any
) -> None:
    """Search COLLECTION with one query: --vector, --file or --like."""
    given = [name for name in ("vector", "file", "like") if options[name] is not None]
    if len(given) != 1:
        raise click.UsageError("give exactly one of --vector, --file and --like")
    with connect(addresses, timeout_s) as client:
        query = _query(client, collection, options)
        found = client.search(
            collection, query, k, exact=options["exact"], min_coverage=options["min_coverage"], model=options["model"],
            attributes=True, text=True,
        )  # fmt: skip
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(dataclasses.asdict(found)), indent=2))
    else:
        _show(found)


def _query(client: Client, collection: str, options: dict[str, Any]) -> npt.NDArray[Any]:
    if options["vector"] is not None:
        return parse_vector(options["vector"])
    if options["file"] is not None:
        rows = next(read(options["file"])).vectors
        if options["row"] >= len(rows):
            raise InvalidArgument("row", f"is {options['row']}", f"must be 0 to {len(rows) - 1}")
        row: npt.NDArray[Any] = rows[options["row"]]
        return row
    return _vector_of(client, collection, options["like"], options["model"])


def _vector_of(client: Client, collection: str, document: str, model: str) -> npt.NDArray[Any]:
    wanted = model or client.collection(collection).serving_model
    for found in client.get(collection, [parse_id(document)], vectors=True):
        if found.vectors and wanted in found.vectors:
            return found.vectors[wanted]
        raise NotFound(f"document {document} has no vector of model {wanted}")
    raise NotFound(f"document {document} does not exist in collection {collection}")


def _show(found: SearchResult) -> None:
    console, table = tables.console(), tables.new("score", "id", "attributes", "text")
    for hit in found:
        attributes = msgspec.json.encode(hit.attributes).decode() if hit.attributes else ""
        text = " ".join((hit.text or "").split())
        table.add_row(f"{hit.score:.6f}", repr(hit.id), attributes[:_SHOWN_CHARACTERS], text[:_SHOWN_CHARACTERS])
    console.print(table)
    coverage = found.coverage
    if not coverage.complete:
        console.print(f"[yellow]searched {coverage.shards_answered} of {coverage.shards_total} shards,"
                      f" {coverage.documents_covered:,} of {coverage.documents_total:,} documents[/yellow]")  # fmt: skip
        for failure in coverage.failures:
            console.print(f"[yellow]shard {failure.shard}: {failure.code}: {failure.message}[/yellow]")
