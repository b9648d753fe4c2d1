"""Commands that change the cluster as a whole: init and recover."""

import asyncio

import click

from kintsugi.cli import output
from kintsugi.cli.connection import client_options, connect, json_option
from kintsugi.cli.exit_codes import EXIT_DONE, EXIT_FAILING
from kintsugi.cli.waiting import Waiting, find, waiting
from kintsugi.keys import DEFAULT_NAMESPACE
from kintsugi.limits import MAX_REPLICAS, MAX_SHARDS
from kintsugi.local.folder import new_cluster_id
from kintsugi.local.initialise import initialise
from kintsugi.registry.records import Defaults


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

    \b
    kintsugi init --redis redis://localhost:6379 --shards 4 --replicas 2
    """  # noqa: D301 -- click's mark for lines that stay as they are
    created = asyncio.run(initialise(redis, namespace, cluster_id or new_cluster_id(), Defaults(shards, replicas)))
    click.echo(f"cluster {created.cluster_id} is ready for its processes in namespace {namespace}")


@click.command(short_help="Show what recoveries wait for, or let one go on.")
@click.option("--accept-loss", "shard_name", metavar="COLLECTION/SHARD",
              help="Recover this shard without the replicas that cannot be reached.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("what waits, or what was given up,")
@client_options
def recover(shard_name: str | None, yes: bool, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> int:
    """Show which shards wait for recovery, and for whom; or let one go on without them. Also recovers a shard whose
    in-sync replicas are all lost, from its other ones.

    Without --accept-loss nothing is changed, and the exit code is 4 while something waits. With it, what only the
    unreachable replicas hold is given up for good: bring them back instead, if you can.

    \b
    kintsugi recover
    kintsugi recover --accept-loss books/0
    """  # noqa: D301 -- click's mark for lines that stay as they are
    named = None if shard_name is None else _parse_shard(shard_name)
    with connect(addresses, timeout_s) as client:
        found = waiting(client.status())
        if named is None:
            return _show(found, as_json=as_json)
        one = find(found, *named)
        if not yes:
            unknown = (
                f"{shard_name} does not seem to wait; give up its replicas that cannot be reached, if there are any"
            )
            click.confirm(one.question if one is not None else unknown, abort=True)
        accepted = client.accept_loss(*named)
    if as_json:
        output.show_json(accepted)
    else:
        click.echo(accepted.message)
    return EXIT_DONE


def _parse_shard(text: str) -> tuple[str, int]:
    name, separator, number = text.rpartition("/")
    if not separator or not name or not number.isdigit():
        raise click.BadParameter(f"{text!r}, must be COLLECTION/SHARD such as books/0", param_hint="--accept-loss")
    return name, int(number)


def _show(found: tuple[Waiting, ...], *, as_json: bool) -> int:
    if as_json:
        output.show_json({"waiting": found})
    elif not found:
        click.echo("no shard waits for recovery")
    else:
        table = output.table("shard", "says", "waits for", "others hold up to")
        for one in found:
            table.add_row(
                f"{one.collection}/{one.shard}", one.message, ", ".join(map(str, one.silent)), f"{one.kept_seq:,}"
            )
        output.console().print(table)
        click.echo("bring these members back, or give up what only they hold: kintsugi recover --accept-loss SHARD")
    return EXIT_FAILING if found else EXIT_DONE
