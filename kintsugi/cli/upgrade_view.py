"""How an upgrade looks: a sentence, a table by replica, JSON."""

from typing import Any

import msgspec
from rich.table import Table

from kintsugi.cli import output
from kintsugi.registry.records import UpgradeState
from kintsugi.sdk.upgrade_types import Upgrade, UpgradeProgress, UpgradeStatus

_STATE_COLOURS = {
    UpgradeState.PLANNED: "cyan",
    UpgradeState.FINISHED: "green",
    UpgradeState.CUT_OVER: "green",
    UpgradeState.ROLLING_BACK: "yellow",
    UpgradeState.ROLLED_BACK: "yellow",
}


def sentence(name: str, upgrade: Upgrade) -> str:
    paused = ", paused" if upgrade.paused else ""
    waits = f"; it waits for: {upgrade.waits_for}" if upgrade.waits_for else ""
    return f"collection {name}: the upgrade from {upgrade.old_model} to {upgrade.new_model.name} is {upgrade.state}{paused}{waits}"


def status_json(found: UpgradeStatus) -> dict[str, Any]:
    """Everything that is known, with what follows from it."""
    return {
        "upgrade": found.upgrade,
        "documents": found.documents,
        "migrated": found.migrated,
        "migrated_by_traffic": found.migrated_by_traffic,
        "replicas": found.replicas,
        "report": msgspec.Raw(found.report) if found.report else None,
    }


def show_status(name: str, found: UpgradeStatus) -> None:
    console = output.console()
    console.print(_facts(name, found))
    if found.replicas:
        console.print(_replicas(found))


def _facts(name: str, found: UpgradeStatus) -> Table:
    upgrade = found.upgrade
    table = output.table(title=f"upgrade {upgrade.number} of collection {name}")
    new = upgrade.new_model
    table.add_row("models", output.plain(f"{upgrade.old_model} -> {new.name}, {new.dimension} dimensions"))
    state = output.coloured(upgrade.state.value, _STATE_COLOURS.get(upgrade.state, "white"))
    table.add_row("state", f"{state}{', paused' if upgrade.paused else ''}, since {upgrade.changed_at.isoformat()}")
    if upgrade.waits_for:
        table.add_row("waits for", output.plain(upgrade.waits_for))
    table.add_row("strategy", f"{upgrade.strategy}, scores calibrated by {upgrade.calibration}")
    table.add_row("query vectors of", output.plain(", ".join(upgrade.query_vectors)))
    table.add_row(
        "re-embedded",
        f"{_part(found.migrated)} of {found.documents:,} documents, {upgrade.min_migrated:.2%} to cut over",
    )
    table.add_row("re-embedded by traffic", _part(found.migrated_by_traffic))
    return table


def _replicas(found: UpgradeStatus) -> Table:
    old, new = found.upgrade.old_model, found.upgrade.new_model.name
    table = output.table("shard", "member", "documents", output.plain(f"with {new}"), output.plain(f"with {old}"), "mapped",
                         "hits with it", "stale", "score error", "quality", "message")  # fmt: skip
    for replica in sorted(found.replicas, key=lambda one: (one.shard, one.member)):
        table.add_row(
            str(replica.shard),
            output.plain(replica.member),
            f"{replica.documents:,}",
            _share(replica.with_new_vector, replica),
            _share(replica.with_old_vector, replica),
            "yes" if replica.mapped else "",
            f"{replica.native_hits / replica.hits:.1%}" if replica.hits else "",
            f"{replica.stale_vectors:,}" if replica.stale_vectors else "",
            "" if replica.calibration_error is None else f"{replica.calibration_error:.3f}",
            "" if replica.estimated_recall is None else f"{replica.estimated_recall:.3f}",
            output.plain(replica.message),
        )
    return table


def _share(count: int, replica: UpgradeProgress) -> str:
    return f"{count:,} ({count / replica.documents:.1%})" if replica.documents else f"{count:,}"


def _part(fraction: float | None) -> str:
    return "unknown" if fraction is None else f"{fraction:.2%}"
