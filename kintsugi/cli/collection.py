"""Commands about collections: create, list, describe, encode, delete."""

import dataclasses
from typing import Any

import click
from click.core import ParameterSource

from kintsugi.ann.spec import AUTOMATIC
from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, Encoding, client_options, connect, json_option
from kintsugi.cli.encode import encode
from kintsugi.errors import KintsugiError
from kintsugi.limits import MAX_DIMENSION, MAX_OVERSAMPLING, MAX_REPLICAS, MAX_SHARDS, MIN_OVERSAMPLING
from kintsugi.metrics import Metric, StoredType
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.types import Collection, Model

_CREATE_TIMEOUT_S = 60.0


@click.group()
def collection() -> None:
    """Create, list, describe, encode and delete collections."""


@collection.command()
@click.argument("name")
@click.option("--dimension", required=True, type=click.IntRange(1, MAX_DIMENSION), help="Elements of a vector.")
@click.option("--model", default="default", show_default=True, help="Name of the embedding model.")
@click.option("--metric", default=Metric.COSINE.value, show_default=True, type=click.Choice([m.value for m in Metric]),
              help="How vectors are compared.")  # fmt: skip
@click.option("--shards", type=click.IntRange(1, MAX_SHARDS), help="[default: the cluster's]")
@click.option("--replicas", type=click.IntRange(1, MAX_REPLICAS), help="[default: the cluster's]")
@click.option("--revision", default="", help="Revision of the model, such as a commit.")
@click.option("--query-prefix", default="", help="What the model wants before each query text.")
@click.option("--document-prefix", default="", help="What the model wants before each document text.")
@click.option(
    "--stored",
    default=StoredType.F32.value,
    show_default=True,
    help="Number format of stored vectors.",
    type=click.Choice([s.value for s in StoredType]),
)
@click.option(
    "--encoding",
    default=AUTOMATIC.name,
    show_default=True,
    type=Encoding(),
    help="How vectors are held in memory: see `kintsugi collection encode --help`.",
)
@click.option("--oversampling", type=click.FloatRange(MIN_OVERSAMPLING, MAX_OVERSAMPLING),
              help="With --encoding: candidates per hit.  [default: the encoding's own]")  # fmt: skip
@json_option("the collection")
@client_options
@click.pass_context
def create(
    context: click.Context, /, name: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float, **options: Any
) -> None:
    """Create a collection and wait until every replica of it serves. Repeating it is harmless.

    \b
    kintsugi collection create books --dimension 384
    kintsugi collection create books --dimension 384 --metric dot --shards 4 --replicas 2
    """  # noqa: D301 -- click's mark for lines that stay as they are
    waiting = (
        timeout_s if context.get_parameter_source("timeout_s") is not ParameterSource.DEFAULT else _CREATE_TIMEOUT_S
    )
    words = {word: options.pop(word) for word in ("revision", "query_prefix", "document_prefix")}
    model = Model(options.pop("model"), options.pop("dimension"), **words)
    with connect(addresses, timeout_s) as client:
        made = client.create_collection(name, model, options.pop("metric"), timeout_s=waiting, **options)
    if as_json:
        output.show_json(made)
        return
    click.echo(f"collection {made.name}: {made.shards} shards x {made.replicas} replicas, model {made.serving_model}")


collection.add_command(encode)


@collection.command("list")
@json_option("the collections")
@client_options
def list_(as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """List all collections."""
    with connect(addresses, timeout_s) as client:
        found = client.collections()
    if as_json:
        output.show_json(found)
        return
    table = output.table(
        "collection", "shards", "replicas", "metric", "stored", "encoding", "serving model", "dimension"
    )
    for item in found:
        table.add_row(item.name, str(item.shards), str(item.replicas), item.metric, item.stored, item.encoding, item.serving_model,
                      str(_serving(item).dimension))  # fmt: skip
    output.console().print(table if found else "no collections")


@collection.command()
@click.argument("name", type=COLLECTION)
@json_option("the collection, with its `documents`,")
@client_options
def describe(name: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Describe one collection and count its documents."""
    with connect(addresses, timeout_s) as client:
        found, documents = client.collection(name), client.count(name)
    if as_json:
        output.show_json({**dataclasses.asdict(found), "documents": documents})
        return
    table = output.table(title=f"collection {found.name}")
    table.add_row("documents", f"{documents:,}")
    table.add_row("shards x replicas", f"{found.shards} x {found.replicas}")
    table.add_row("metric, stored as", f"{found.metric}, {found.stored}")
    over = f", {found.oversampling:g} candidates per hit" if found.oversampling else ""
    table.add_row("held in memory as", f"{found.encoding}{over}")
    for model in found.models:
        revision = f" {model.revision}" if model.revision else ""
        serving = " (serving)" if model.name == found.serving_model else ""
        table.add_row("model", f"{model.name}{revision}, {model.dimension} dimensions{serving}")
    table.add_row("created at", found.created_at.isoformat())
    table.add_row("uid", found.uid)
    output.console().print(table)


@collection.command()
@click.argument("name", type=COLLECTION)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("what was deleted")
@client_options
def delete(name: str, yes: bool, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Delete a collection and all its documents. There is no way back.

    \b
    kintsugi collection delete books
    kintsugi collection delete books --yes
    """  # noqa: D301 -- click's mark for lines that stay as they are
    with connect(addresses, timeout_s) as client:
        if not yes:
            found = client.collection(name)
            click.confirm(f"delete collection {found.name} and all its {_count(client, name)} documents", abort=True)
        client.delete_collection(name)
    if as_json:
        output.show_json({"deleted": name})
    else:
        click.echo(f"collection {name} is deleted")


def _count(client: Client, name: str) -> str:
    """For the question only: a collection that cannot be counted may be deleted all the same."""
    try:
        return f"{client.count(name):,}"
    except KintsugiError:
        return "(not countable now)"


def _serving(found: Collection) -> Model:
    return next(model for model in found.models if model.name == found.serving_model)
