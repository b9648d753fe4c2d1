"""Commands about the cluster as a whole: init, status, recover."""

import asyncio
import dataclasses

import click
import msgspec
from rich.console import Console
from rich.table import Table

from kintsugi.cli import tables
from kintsugi.cli.connection import client_options, connect
from kintsugi.keys import DEFAULT_NAMESPACE
from kintsugi.limits import MAX_REPLICAS, MAX_SHARDS
from kintsugi.local.folder import new_cluster_id
from kintsugi.local.initialise import initialise
from kintsugi.registry.records import Defaults
from kintsugi.sdk.status import ClusterStatus, MemberStatus, ReplicaStatus, ShardStatus

_GOOD = {"ok", "open", "in-sync", "serving", "SERVING"}


@click.command(short_help="Create a new cluster in a Redis, once.")
@click.option("--redis", required=True, envvar="KINTSUGI_REDIS", metavar="URL", help="The Redis or Valkey to use.")
@click.option("--namespace", default=DEFAULT_NAMESPACE, show_default=True, envvar="KINTSUGI_NAMESPACE",
              help="Prefix of all keys, so that clusters can share a Redis.")  # fmt: skip
@click.option(
    "--cluster-id", default="", help="The id to give; repeating the command with it is harmless.  [default: drawn]"
)
@click.option("--shards", default=1, show_default=True, type=click.IntRange(1, MAX_SHARDS),
              help="Shards of a collection that does not say.")  # fmt: skip
@click.option("--replicas", default=1, show_default=True, type=click.IntRange(1, MAX_REPLICAS),
              help="Replicas of a collection that does not say.")  # fmt: skip
def init(redis: str, namespace: str, cluster_id: str, shards: int, replicas: int) -> None:
    """Create a new cluster in a Redis, once, before its processes start.

    Never use it after Redis lost its data: the shard servers restore the cluster by themselves.
    """
    created = asyncio.run(initialise(redis, namespace, cluster_id or new_cluster_id(), Defaults(shards, replicas)))
    click.echo(f"cluster {created.cluster_id} is ready for its processes in namespace {namespace}")


@click.command(short_help="Let a recovery go on without lost replicas.")
@click.option("--accept-loss", "shard_name", required=True, metavar="COLLECTION/SHARD",
              help="The shard to recover without the replicas that cannot be reached.")  # fmt: skip
@client_options
def recover(shard_name: str, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Let a recovery go on that waits for replicas which will not come back.

    Gives up for good what only they hold; `kintsugi status` shows what a recovery waits for.
    """
    name, separator, number = shard_name.rpartition("/")
    if not separator or not name or not number.isdigit():
        raise click.BadParameter(
            f"{shard_name!r}, must be COLLECTION/SHARD such as books/0", param_hint="--accept-loss"
        )
    with connect(addresses, timeout_s) as client:
        click.echo(client.accept_loss(name, int(number)).message)


@click.command()
@click.option("--collection", default="", help="Only this collection.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
@client_options
def status(collection: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Show what runs where, and how far it is. Works while Redis is down."""
    with connect(addresses, timeout_s) as client:
        answer = client.status(collection)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(dataclasses.asdict(answer)), indent=2))
        return
    show_status(answer, tables.console())


def show_status(answer: ClusterStatus, console: Console) -> None:
    """Draws the status as tables."""
    console.print(f"cluster {answer.cluster_id or '(never seen)'}, registry {_coloured(answer.registry)}"
                  f" at incarnation {answer.incarnation}, revision {answer.revision}")  # fmt: skip
    if answer.message:
        console.print(f"[yellow]{answer.message}[/yellow]")
    console.print(_members(answer.members))
    for collection in answer.collections:
        table = tables.new(
            *("shard", "log", "replica on", "state", "phase", "durable", "searchable", "documents", "index"),
            title=f"collection {collection.name}",
        )
        for shard in collection.shards:
            _add_shard(table, shard)
        console.print(table)
        for shard in collection.shards:
            for message in filter(None, [shard.message, *(replica.message for replica in shard.replicas)]):
                console.print(f"[yellow]shard {shard.shard}: {message}[/yellow]")


def _members(members: tuple[MemberStatus, ...]) -> Table:
    table = tables.new("member", "role", "address", "alive", "lifecycle", "memory", "version")
    for member in members:
        alive = "[green]yes[/green]" if member.alive else "[red]no[/red]"
        memory = f"{member.resident_bytes / 2**20:,.0f} MiB" if member.resident_bytes else ""
        table.add_row(
            member.id,
            member.role,
            member.address,
            alive,
            _coloured(member.lifecycle or "no answer"),
            memory,
            member.version,
        )
    return table


def _add_shard(table: Table, shard: ShardStatus) -> None:
    head = [str(shard.shard), f"{_coloured(shard.log_state)}, epoch {shard.epoch}, at {shard.log_seq:,}"]
    for replica in shard.replicas or (None,):
        table.add_row(*head, *(_replica_cells(replica) if replica else ["(none)"]))
        head = [""] * len(head)


def _replica_cells(replica: ReplicaStatus) -> list[str]:
    cells = [replica.member, _coloured(replica.state)]
    if not replica.reachable:
        return [*cells, _coloured("no answer")]
    indexes = ", ".join(
        f"v{index.version} {index.encoding} {_coloured(index.state)} ({index.vectors:,})"
        for index in replica.index_versions
    )
    numbers = [f"{number:,}" for number in (replica.durable_seq, replica.searchable_seq, replica.documents)]
    return [*cells, _coloured(replica.phase), *numbers, indexes]


def _coloured(word: str) -> str:
    return f"[{'green' if word in _GOOD else 'yellow'}]{word}[/]"
