"""Commands that move a collection from one embedding model to another. Planning and re-embedding are in files of their own."""

import click

from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, client_options, connect, json_option
from kintsugi.cli.upgrade_backfill import backfill
from kintsugi.cli.upgrade_plan import plan
from kintsugi.cli.upgrade_view import sentence, show_status, status_json
from kintsugi.sdk.upgrade_types import Upgrade


@click.group()
def upgrade() -> None:
    """Move a collection to another embedding model while it serves.

    \b
    plan        measure on a sample how to do it, and register that
    start       take queries and writes of the new model, too
    backfill    re-embed documents; any number of these at once
    cut-over    make the new model the default
    finish      give the old model up, for good
    rollback    return to the old model; until `finish`
    """  # noqa: D301 -- click's mark for lines that stay as they are


@upgrade.command()
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@json_option("the upgrade")
@client_options
def start(name: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Begin the planned upgrade of COLLECTION. It takes queries and writes of both models from then on."""
    with connect(addresses, timeout_s) as client:
        moved = client.upgrade_start(name)
    _tell(name, moved, as_json=as_json)


@upgrade.command()
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@json_option("the upgrade, its replicas and its report")
@client_options
def status(name: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Show how far the last upgrade of COLLECTION is, by replica."""
    with connect(addresses, timeout_s) as client:
        found = client.upgrade_status(name)
    if as_json:
        output.show_json(status_json(found))
    else:
        show_status(name, found)


@upgrade.command()
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@json_option("the upgrade")
@client_options
def pause(name: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Hand out no more documents of COLLECTION for re-embedding. Searches and writes go on."""
    with connect(addresses, timeout_s) as client:
        moved = client.upgrade_pause(name)
    _tell(name, moved, as_json=as_json)


@upgrade.command()
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@json_option("the upgrade")
@client_options
def resume(name: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Hand out documents of COLLECTION again."""
    with connect(addresses, timeout_s) as client:
        moved = client.upgrade_resume(name)
    _tell(name, moved, as_json=as_json)


@upgrade.command("cut-over")
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@json_option("the upgrade")
@client_options
def cut_over(name: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Make the new model the one that requests mean when they name none.

    Refused while fewer documents have new vectors, or the new index finds less, than the plan demands. The old model is
    still served.
    """
    with connect(addresses, timeout_s) as client:
        moved = client.upgrade_cut_over(name)
    _tell(name, moved, as_json=as_json)


@upgrade.command()
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@json_option("the upgrade")
@client_options
def rollback(name: str, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Return COLLECTION to the old model. No document is lost.

    Documents that were written with a new vector only are found by a projection of it, and are flagged, until `kintsugi
    upgrade backfill --model OLD` has embedded them with the old model.
    """
    with connect(addresses, timeout_s) as client:
        moved = client.upgrade_rollback(name)
    _tell(name, moved, as_json=as_json)


@upgrade.command()
@click.argument("name", metavar="COLLECTION", type=COLLECTION)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("the upgrade")
@client_options
def finish(name: str, yes: bool, as_json: bool, addresses: tuple[str, ...], timeout_s: float) -> None:
    """Give the old model of COLLECTION up: its vectors are dropped. There is no way back.

    Refused while a document lacks a new vector.
    """
    with connect(addresses, timeout_s) as client:
        if not yes:
            found = client.upgrade_status(name).upgrade
            click.confirm(f"give up model {found.old_model} of collection {name} and drop all its vectors", abort=True)
        moved = client.upgrade_finish(name)
    _tell(name, moved, as_json=as_json)


def _tell(name: str, moved: Upgrade, *, as_json: bool) -> None:
    if as_json:
        output.show_json(moved)
    else:
        click.echo(sentence(name, moved))


upgrade.add_command(plan)
upgrade.add_command(backfill)
