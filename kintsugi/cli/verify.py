"""The command that checks a collection: do its replicas hold the same, and does search find what is there?"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from kintsugi import limits
from kintsugi.cli import output
from kintsugi.cli.connection import COLLECTION, client_options, connect, json_option
from kintsugi.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from kintsugi.sdk import progress
from kintsugi.sdk.verifying import Agreement, ReplicaCheck, ShardVerdict, verdicts

# How often replicas that were not compared are looked at again: their writers may pause.
_LOOKS = 4
_BAD = (Agreement.DIFFER, Agreement.UNCHECKED)
_COLOURS = {
    Agreement.DIFFER: "red",
    Agreement.UNCHECKED: "red",
    Agreement.NOT_COMPARED: "yellow",
    Agreement.ALONE: "yellow",
    Agreement.AGREE: "green",
}

Look = Callable[[int], Iterable[ReplicaCheck]]


@click.command(short_help="Check that replicas hold the same and that search finds it.")
@click.argument("name", type=COLLECTION)
@click.option("--queries", default=limits.DEFAULT_VERIFY_QUERIES, show_default=True,
              type=click.IntRange(1, limits.MAX_VERIFY_QUERIES), help="Searches per replica.")  # fmt: skip
@click.option("-k", default=limits.DEFAULT_VERIFY_K, show_default=True, type=click.IntRange(1, limits.MAX_VERIFY_K),
              help="Hits per search.")  # fmt: skip
@click.option("--min-recall", type=click.FloatRange(0, 1), help="Fail when a replica finds less.  [default: no bound]")
@click.option("--within", "within_s", default=limits.DEFAULT_VERIFY_DEADLINE_S, show_default=True, metavar="SECONDS",
              type=click.FloatRange(min=0, min_open=True), help="Report as unchecked what takes longer.")  # fmt: skip
@json_option("what was found")
@client_options
def verify(
    name: str,
    queries: int,
    k: int,
    as_json: bool,
    addresses: tuple[str, ...],
    timeout_s: float,
    *,
    min_recall: float | None,
    within_s: float,
) -> int:
    """Check that the replicas of a collection hold the same, and that their indexes find what is there.

    Every replica digests its documents and searches for a sample of its own vectors, with its index and exactly. Live
    searches go on, a little slower. Replicas at different positions are looked at again a few times; while writes go on
    they may stay "not-compared", which is no fault. The exit code is 1 when replicas differ, when one could not be checked,
    and when one finds less than --min-recall.

    \b
    kintsugi verify books
    kintsugi verify books --queries 500 -k 20 --min-recall 0.98
    """  # noqa: D301 -- click's mark for lines that stay as they are
    with connect(addresses, timeout_s) as client:
        found = client.collection(name)
        with progress.bar(f"verifying {name}", found.shards * found.replicas, None) as advance:
            first = []
            for check in client.verify(name, queries, k, timeout_s=within_s):
                first.append(check)
                advance(1)
        checks = compared(first, lambda few: client.verify(name, few, k, timeout_s=within_s))
    told = verdicts(checks)
    low = [check for check in checks if _is_low(check, min_recall)]
    if as_json:
        output.show_json(_document(name, checks, told, is_good=not low and _are_good(told)))
    else:
        _show(name, checks, told)
        for check in low:
            output.complain(
                "low", f"{check.member} finds {check.recall:.4f} of shard {check.shard}, wanted {min_recall}"
            )
    return EXIT_DONE if not low and _are_good(told) else EXIT_FAILED


def compared(first: Sequence[ReplicaCheck], look: Look) -> list[ReplicaCheck]:
    """The checks after replicas at different positions were looked at again, with few queries: what the first look
    measured stays."""
    checks = {(check.shard, check.member): check for check in first}
    for _ in range(_LOOKS - 1):
        apart = {told.shard for told in verdicts(checks.values()) if told.agreement is Agreement.NOT_COMPARED}
        if not apart:
            break
        for check in look(1):
            key = (check.shard, check.member)
            if check.shard in apart and key in checks and not check.failure:
                measured = checks[key]
                checks[key] = dataclasses.replace(check, queries=measured.queries, recall=measured.recall)
    return sorted(checks.values(), key=lambda check: (check.shard, check.member))


def _are_good(told: Iterable[ShardVerdict]) -> bool:
    return not any(verdict.agreement in _BAD for verdict in told)


def _is_low(check: ReplicaCheck, min_recall: float | None) -> bool:
    return min_recall is not None and check.recall is not None and check.recall < min_recall


def _show(name: str, checks: Sequence[ReplicaCheck], told: Sequence[ShardVerdict]) -> None:
    table = output.table(
        *("shard", "replica on", "at", "documents", "content", "index", "queries", "recall"), title=f"collection {name}"
    )
    for check in checks:
        table.add_row(str(check.shard), *_cells(check))
    console = output.console()
    console.print(table)
    for verdict in told:
        word = output.coloured(verdict.agreement.value, _COLOURS[verdict.agreement])
        console.print(f"shard {verdict.shard}: {word}{output.plain(verdict.message and f': {verdict.message}')}")


def _cells(check: ReplicaCheck) -> list[str]:
    if check.failure:
        return [check.member, output.coloured("unchecked", "red")]
    recall = "" if check.recall is None else f"{check.recall:.4f}"
    index = f"v{check.index_version} {check.encoding}"
    content = check.content_digest.hex()[:16]
    return [check.member, f"{check.seq:,}", f"{check.documents:,}", content, index, f"{check.queries}", recall]


def _document(
    name: str, checks: Sequence[ReplicaCheck], told: Sequence[ShardVerdict], *, is_good: bool
) -> dict[str, Any]:
    return {
        "collection": name,
        "good": is_good,
        "shards": [
            {
                "shard": verdict.shard,
                "agreement": verdict.agreement.value,
                "message": verdict.message,
                "recall": verdict.recall,
                "replicas": [_replica(check) for check in checks if check.shard == verdict.shard],
            }
            for verdict in told
        ],
    }


def _replica(check: ReplicaCheck) -> dict[str, Any]:
    told = dataclasses.asdict(check)
    digests = {"log_digest": check.log_digest.hex(), "content_digest": check.content_digest.hex()}
    return {key: value for key, value in (told | digests).items() if key not in ("shard", "replicas")}
