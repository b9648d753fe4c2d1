"""Commands about collections: create, list, describe, delete."""

from typing import Any

import click
from click.core import ParameterSource

from kintsugi.cli import tables
from kintsugi.cli.connection import client_options, connect
from kintsugi.limits import MAX_DIMENSION, MAX_REPLICAS, MAX_SHARDS
from kintsugi.metrics import Metric, StoredType
from kintsugi.sdk.types import Collection, Model

_CREATE_TIMEOUT_S = 60.0


@click.group()
def collection() -> None:
    """Create, list, describe and delete collections."""


@collection.command()
@click.argument("name")
@click.option("--dimension", required=True, type=click.IntRange(1, MAX_DIMENSION), help="Elements of a vector.")
@click.option("--model", default="default", show_default=True, help="Name of the embedding model.")
@click.option("--metric", default=Metric.COSINE.value, show_default=True, type=click.Choice([m.value for m in Metric]),
              help="How vectors are compared.")  # fmt: skip
@click.option("--shards", type=click.IntRange(1, MAX_SHARDS), help="[default: the cluster's]")
@click.option("--replicas", type=click.IntRange(1, MAX_REPLICAS), help="[default: the cluster's]")
@click.option("--stored", default=StoredType.F32.value, show_default=True, help="Number format of stored vectors.",
              type=click.Choice([s.value for s in StoredType]))  # fmt: skip
@client_options
@click.pass_context
def create(context: click.Context, /, name: str, addresses: tuple[str, ...], timeout_s: float, **options: Any) -> None:
    """Create a collection and wait until every replica of it serves. Repeating it is harmless."""
    waiting = (
        timeout_s if context.get_parameter_source("timeout_s") is not ParameterSource.DEFAULT else _CREATE_TIMEOUT_S
    )
    model = Model(options.pop("model"), options.pop("dimension"))
    with connect(addresses, timeout_s) as client:
        made = client.create_collection(name, model, options.pop("metric"), timeout_s=waiting, **options)
    click.echo(f"collection {made.name}: {made.shards} shards x {made.replicas} replicas, model {made.serving_model}")


@collection.command("list")
@client_options
def list_(addresses: tuple[str, ...], timeout_s: float) -> None:
    """List all collections."""
    with connect(addresses, timeout_s) as client:
        found = client.collections()
    table = tables.new("collection", "shards", "replicas", "metric", "stored", "serving model", "dimension")
    for item in found:
        table.add_row(item.name, str(item.shards), str(item.replicas), item.metric, item.stored, item.serving_model,
                      str(_serving(item).dimension))  # fmt: skip
    tables.console().print(table if found else "no collections")


@collection.command()
@click.argument("name")
@client_options
def describe(name: str, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Describe one collection and count its documents."""
    with connect(addresses, timeout_s) as client:
        found, documents = client.collection(name), client.count(name)
    table = tables.new(title=f"collection {found.name}")
    table.add_row("documents", f"{documents:,}")
    table.add_row("shards x replicas", f"{found.shards} x {found.replicas}")
    table.add_row("metric, stored as", f"{found.metric}, {found.stored}")
    for model in found.models:
        revision = f" {model.revision}" if model.revision else ""
        serving = " (serving)" if model.name == found.serving_model else ""
        table.add_row("model", f"{model.name}{revision}, {model.dimension} dimensions{serving}")
    table.add_row("created at", found.created_at.isoformat())
    table.add_row("uid", found.uid)
    tables.console().print(table)


@collection.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
def delete(name: str, yes: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Delete a collection and all its documents. There is no way back."""
    if not yes:
        click.confirm(f"delete collection {name} and all its documents", abort=True)
    with connect(addresses, timeout_s) as client:
        client.delete_collection(name)
    click.echo(f"collection {name} is deleted")


def _serving(found: Collection) -> Model:
    return next(model for model in found.models if model.name == found.serving_model)
