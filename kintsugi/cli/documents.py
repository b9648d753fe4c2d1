"""Commands about the documents that fulfil a filter: count and delete."""

import click

from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, client_options, connect, json_option
from kintsugi.limits import MAX_REPLICAS
from kintsugi.sdk import progress
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.types import DeletedByFilter

# One call deletes up to 10,000 documents.
_CALL_S = 60.0


@click.command(short_help="Count the documents of a collection.")
@click.argument("name", type=COLLECTION)
@click.option("--filter", "condition", metavar="EXPRESSION", help="Count only what fulfils it.  [default: all]")
@json_option("the count")
@client_options
def count(name: str, condition: str | None, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Count the documents of a collection, or those that fulfil a filter. Exact: every shard must answer.

    \b
    kintsugi count books
    kintsugi count books --filter 'year >= 2000 and lang in ("de", "en")'
    """  # noqa: D301 -- click's mark for lines that stay as they are
    with connect(addresses, timeout_s) as client:
        found = client.count(name, filter=condition)
    if as_json:
        output.show_json({"collection": name, "count": found})
    else:
        click.echo(f"{found:,}")


@click.command(short_help="Delete the documents that fulfil a filter.")
@click.argument("name", type=COLLECTION)
@click.option("--filter", "condition", required=True, metavar="EXPRESSION", help="Which documents to delete.")
@click.option("--limit", type=click.IntRange(1), help="Delete at most so many.  [default: all of them]")
@click.option("--durable-replicas", default=1, show_default=True, type=click.IntRange(1, MAX_REPLICAS),
              help="Replicas per shard that must have synced each delete.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only tell how many there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("what was deleted")
@client_options
def delete(
    name: str,
    condition: str,
    as_json: bool,
    addresses: tuple[str, ...],
    timeout_s: float,
    *,
    limit: int | None,
    durable_replicas: int,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete the documents of a collection that fulfil a filter. There is no way back.

    A document that is rewritten meanwhile stays. Every shard must answer, or nothing is deleted; when one fails in the
    middle, the same command deletes the rest.

    \b
    kintsugi delete books --filter 'draft = true and year < 1990'
    kintsugi delete books --filter 'exists(expired)' --dry-run
    """  # noqa: D301 -- click's mark for lines that stay as they are
    with connect(addresses, timeout_s) as client:
        found = client.count(name, filter=condition)
        wanted = found if limit is None else min(found, limit)
        if dry_run:
            if as_json:
                output.show_json({"collection": name, "would_delete": wanted})
            else:
                click.echo(f"{wanted:,} documents of collection {name} would be deleted")
            return
        if not yes:
            click.confirm(f"delete {wanted:,} documents of collection {name}", abort=True)
        deleted = _delete(client, name, condition, limit, wanted, durable_replicas, timeout_s)
    _tell(name, deleted, as_json=as_json)


def _delete(
    client: Client,
    name: str,
    condition: str,
    limit: int | None,
    wanted: int,
    durable_replicas: int,
    timeout_s: float,
) -> DeletedByFilter:
    with progress.bar(f"deleting from {name}", wanted, None) as advance:
        return client.delete_by_filter(
            name,
            condition,
            limit=limit,
            durable_replicas=durable_replicas,
            on_deleted=advance,
            timeout_s=max(timeout_s, _CALL_S),
        )


def _tell(name: str, done: DeletedByFilter, *, as_json: bool) -> None:
    if as_json:
        told = {"deleted": done.deleted, "changed": done.changed, "more": done.more, "token": done.token.hex()}
        output.show_json({"collection": name, **told})
        return
    click.echo(f"deleted {done.deleted:,} documents of collection {name}")
    if done.changed:
        click.echo(f"{done.changed:,} were changed by others meanwhile and are left alone")
