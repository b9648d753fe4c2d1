"""The command that searches with one query."""

from pathlib import Path
from typing import Any

import click
import msgspec

from kintsugi.cli import output, query
from kintsugi.cli.connection import COLLECTION, client_options, connect, json_option
from kintsugi.filters.tree import Value
from kintsugi.limits import (
    DEFAULT_K,
    MAX_EF_SEARCH,
    MAX_GROUP_SIZE,
    MAX_HITS,
    MAX_K,
    MAX_OVERSAMPLING,
    MIN_OVERSAMPLING,
)
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
@click.option("--ef-search", type=click.IntRange(1, MAX_EF_SEARCH),
              help="Candidates that the graph's search looks at.  [default: as many as needed]")  # fmt: skip
@click.option("--min-coverage", type=click.FloatRange(0, 1, min_open=True),
              help="Fraction of shards that must answer.  [default: 1]")  # fmt: skip
@click.option("--filter", "condition", metavar="EXPRESSION",
              help="Find only what fulfils it, such as 'year >= 2000 and lang = \"en\"'.")  # fmt: skip
@click.option("--min-score", type=float, help="Leave out hits below this score.")
@click.option("--offset", default=0, show_default=True, type=click.IntRange(0, MAX_HITS - 1),
              help="Skip the best hits; with -k at most 1000 together.")  # fmt: skip
@click.option("--group-by", metavar="ATTRIBUTE", help="Find the best groups, by this attribute; -k counts groups.")
@click.option("--group-size", type=click.IntRange(1, MAX_GROUP_SIZE), help="Hits per group.  [default: 1]")
@click.option("--model", default="", help="The model of the query.  [default: the collection's]")
@click.option("--also", metavar="MODEL=NUMBERS",
              help="The same query by another model, too, while the collection is upgraded.")  # fmt: skip
@click.option("--tell-unmigrated", is_flag=True, help="During an upgrade: list candidates that lack a new vector.")
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
    kintsugi search books --like 42 --filter 'year >= 2000 and not exists(draft)'
    kintsugi search books --like 42 --group-by author --group-size 3
    kintsugi search books --vector "0.1, 0.2" --model new --also "old=0.5, 0.6, 0.7"
    """  # noqa: D301 -- click's mark for lines that stay as they are
    given = [name for name in _QUERIES if options[name] is not None]
    if len(given) != 1:
        raise click.UsageError("give exactly one of --vector, --file, --like and --text")
    if options["text"] is not None and not options["embed"]:
        raise click.UsageError("--text needs --embed COMMAND, which prints the vector of a text")
    with connect(addresses, timeout_s) as client:
        vectors = {options["model"]: _vector(client, collection, options)}
        if options["also"] is not None:
            name, vector = query.parse_named(options["also"])
            vectors[name] = vector
        found = client.search(
            collection, vectors, k, exact=options["exact"], oversampling=options["oversampling"],
            ef_search=options["ef_search"],
            min_coverage=options["min_coverage"], filter=options["condition"],
            min_score=options["min_score"], offset=options["offset"],
            group_by=options["group_by"], group_size=options["group_size"],
            attributes=options["attributes"], text=options["attributes"],
            tell_unmigrated=options["tell_unmigrated"],
        )  # fmt: skip
    if as_json:
        output.show_json(found)
    else:
        _show(found, options["group_by"])


def _vector(client: Client, name: str, options: dict[str, Any]) -> FloatArray:
    if options["vector"] is not None:
        return query.parse_vector(options["vector"])
    collection, model = client.collection(name), options["model"]
    if options["file"] is not None:
        return query.of_file(options["file"], options["row"], collection, model)
    if options["like"] is not None:
        return query.of_document(client, collection, options["like"], model)
    return query.of_text(options["embed"], options["text"], collection, model)


def _show(found: SearchResult, group_by: str | None) -> None:
    """With groups, their value stands beside the first hit of each; with projected hits, where each score is from."""
    named = [output.plain(group_by)] if group_by is not None else []
    sources = ["model"] if any(hit.projected for hit in found) else []
    console, table = output.console(), output.table(*named, "score", *sources, "id", "attributes", "text")
    shown: object = None
    for hit in found:
        attributes = msgspec.json.encode(hit.attributes).decode() if hit.attributes else ""
        text = " ".join((hit.text or "").split())
        source = [f"{hit.model}, projected" if hit.projected else hit.model] if sources else []
        cells = [f"{hit.score:.6f}", *source, repr(hit.id), _clipped(attributes), _clipped(text)]
        if group_by is not None:
            group = (type(hit.group), hit.group)
            cells.insert(0, "" if group == shown else _clipped(_group_name(hit.group)))
            shown = group
        table.add_row(*(output.plain(cell) for cell in cells))
    console.print(table)
    if found.unmigrated:
        console.print(output.plain(f"without a new vector: {', '.join(map(repr, found.unmigrated))}"))
    coverage = found.coverage
    if not coverage.complete:
        partly = (f"searched {coverage.shards_answered} of {coverage.shards_total} shards,"
                  f" {coverage.documents_covered:,} of {coverage.documents_total:,} documents")  # fmt: skip
        failed = [f"shard {failure.shard}: {failure.code}: {failure.message}" for failure in coverage.failures]
        for line in (partly, *failed):
            console.print(output.coloured(line, "yellow"))


def _group_name(value: Value | None) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
