"""The command that searches with one query."""

from pathlib import Path
from typing import Any

import click
import msgspec

from kintsugi.cli import output, query
from kintsugi.cli.connection import COLLECTION, client_options, connect, json_option
from kintsugi.limits import DEFAULT_K, MAX_K, MAX_OVERSAMPLING, MIN_OVERSAMPLING
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.types import FloatArray, SearchResult

_SHOWN_CHARACTERS = 100
_QUERIES = ("vector", "file", "like", "text")


@click.command(short_help="Search a collection with one query.")
@click.argument("collection", type=COLLECTION)
@click.option("--vector", metavar="NUMBERS", help='The query, such as "0.1,0.2,0.3".')
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take the query from a file of vectors.")  # fmt: skip
@click.option("--row", default=0, show_default=True, type=click.IntRange(0), help="Which row of the file, from 0.")
@click.option("--like", metavar="ID", help="Find what is like this document; '\"42\"' is the string, 42 the number.")
@click.option("--text", help="Find what this text means; needs --embed.")
@click.option("--embed", metavar="COMMAND", envvar="KINTSUGI_EMBED",
              help="Reads the text on stdin and prints its vector as a JSON list. Also from KINTSUGI_EMBED.")  # fmt: skip
@click.option("-k", default=DEFAULT_K, show_default=True, type=click.IntRange(1, MAX_K), help="Hits wanted.")
@click.option("--exact", is_flag=True, help="Compare with every document instead of using the index.")
@click.option("--oversampling", type=click.FloatRange(MIN_OVERSAMPLING, MAX_OVERSAMPLING),
              help="Candidates per hit before exact rescoring.  [default: the index's]")  # fmt: skip
@click.option("--min-coverage", type=click.FloatRange(0, 1, min_open=True),
              help="Fraction of shards that must answer.  [default: 1]")  # fmt: skip
@click.option("--model", default="", help="The model of the query.  [default: the collection's]")
@click.option("--attributes/--no-attributes", default=True,
              help="With or without attributes and texts.  [default: with]")  # fmt: skip
@json_option("hits and coverage")
@client_options
def search(
    collection: str, k: int, as_json: bool, addresses: tuple[str, ...], timeout_s: float, **options: Any
) -> None:
    """Search COLLECTION with one query: --vector, --file, --like or --text.

    \b
    kintsugi search books --vector "0.1, 0.2, 0.3" -k 5
    kintsugi search books --file queries.npy --row 7 --exact
    kintsugi search books --like 42 --json
    kintsugi search books --text "a whale hunt" --embed "python embed.py"
    """  # noqa: D301 -- click's mark for lines that stay as they are
    given = [name for name in _QUERIES if options[name] is not None]
    if len(given) != 1:
        raise click.UsageError("give exactly one of --vector, --file, --like and --text")
    if options["text"] is not None and not options["embed"]:
        raise click.UsageError("--text needs --embed COMMAND, which prints the vector of a text")
    with connect(addresses, timeout_s) as client:
        vector = _vector(client, collection, options)
        found = client.search(
            collection, vector, k, exact=options["exact"], oversampling=options["oversampling"],
            min_coverage=options["min_coverage"], model=options["model"],
            attributes=options["attributes"], text=options["attributes"],
        )  # fmt: skip
    if as_json:
        output.show_json(found)
    else:
        _show(found)


def _vector(client: Client, name: str, options: dict[str, Any]) -> FloatArray:
    if options["vector"] is not None:
        return query.parse_vector(options["vector"])
    collection, model = client.collection(name), options["model"]
    if options["file"] is not None:
        return query.of_file(options["file"], options["row"], collection, model)
    if options["like"] is not None:
        return query.of_document(client, collection, options["like"], model)
    return query.of_text(options["embed"], options["text"], collection, model)


def _show(found: SearchResult) -> None:
    console, table = output.console(), output.table("score", "id", "attributes", "text")
    for hit in found:
        attributes = msgspec.json.encode(hit.attributes).decode() if hit.attributes else ""
        text = " ".join((hit.text or "").split())
        cells = (f"{hit.score:.6f}", repr(hit.id), _clipped(attributes), _clipped(text))
        table.add_row(*(output.plain(cell) for cell in cells))
    console.print(table)
    coverage = found.coverage
    if not coverage.complete:
        partly = (f"searched {coverage.shards_answered} of {coverage.shards_total} shards,"
                  f" {coverage.documents_covered:,} of {coverage.documents_total:,} documents")  # fmt: skip
        failed = [f"shard {failure.shard}: {failure.code}: {failure.message}" for failure in coverage.failures]
        for line in (partly, *failed):
            console.print(output.coloured(line, "yellow"))


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
