"""The command that finds what is wrong and says what to do."""

import asyncio
from pathlib import Path

import click
from click.core import ParameterSource

from kintsugi.cli import output
from kintsugi.cli.connection import client_options, json_option
from kintsugi.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from kintsugi.doctor.examine import Plan, examine
from kintsugi.doctor.findings import Report, Severity
from kintsugi.keys import DEFAULT_NAMESPACE
from kintsugi.local.cluster import VALKEY
from kintsugi.local.folder import HOST, DataFolder

SCHEMA_VERSION = 1
# Whoever does not answer by then is a finding; other commands wait longer, for a cluster that mends itself.
_TIMEOUT_S = 3.0
_DEFAULT_DATA = Path("kintsugi-data")
_COLOURS = {"ok": "green", "problem": "red", "warning": "yellow", "skipped": "dim"}


@click.command(short_help="Find what is wrong, and say what to do.")
@click.option("--redis", default="", envvar="KINTSUGI_REDIS", metavar="URL",
              help="The cluster's Redis. Also from KINTSUGI_REDIS.  [default: that of --data]")  # fmt: skip
@click.option("--namespace", default=DEFAULT_NAMESPACE, show_default=True, envvar="KINTSUGI_NAMESPACE",
              help="Prefix of the cluster's keys.")  # fmt: skip
@click.option("--data", type=click.Path(file_okay=False, path_type=Path),
              help="Data folder of `kintsugi up`.  [default: kintsugi-data, when it is there]")  # fmt: skip
@json_option("checks and findings")
@client_options
@click.pass_context
def doctor(
    context: click.Context, /, redis: str, namespace: str, data: Path | None, as_json: bool,
    addresses: tuple[str, ...], timeout_s: float,
) -> int:  # fmt: skip
    """Look at coordinators, registry, members, shards, machines, Redis and logs; change nothing.

    Every finding comes with what to do. The exit code is 1 when there are problems; warnings alone leave it 0. Run it
    where Redis and all coordinators can be reached.

    \b
    kintsugi doctor
    kintsugi doctor --redis redis://localhost:6379 --address coordinator:7700
    """  # noqa: D301 -- click's mark for lines that stay as they are
    folder = data or (_DEFAULT_DATA if (_DEFAULT_DATA / "cluster.json").exists() else None)
    named = context.get_parameter_source("addresses") is not ParameterSource.DEFAULT
    patient = context.get_parameter_source("timeout_s") is not ParameterSource.DEFAULT
    plan = Plan(
        addresses=addresses if named else (_local_addresses(folder) or addresses),
        redis=redis or _local_redis(folder),
        namespace=namespace,
        data=folder,
        timeout_s=timeout_s if patient else min(timeout_s, _TIMEOUT_S),
    )
    report = asyncio.run(examine(plan))
    if as_json:
        output.show_json(document(report))
    else:
        _show(report)
    return EXIT_FAILED if report.problems else EXIT_DONE


def _local_addresses(folder: Path | None) -> tuple[str, ...]:
    """The coordinators of a `kintsugi up` in that folder."""
    known = DataFolder(folder).read() if folder else None
    ports = known.ports if known else {}
    return tuple(f"{HOST}:{port}" for name, port in sorted(ports.items()) if name.startswith("coordinator-"))


def _local_redis(folder: Path | None) -> str:
    known = DataFolder(folder).read() if folder else None
    return f"redis://{HOST}:{known.ports[VALKEY]}" if known and VALKEY in known.ports else ""


def document(report: Report) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "healthy": not report.problems,
        "checks": [
            {"name": one.name, "state": one.state, "skipped": one.skipped, "findings": one.findings}
            for one in report.checks
        ],
    }


def _show(report: Report) -> None:
    console = output.console()
    for one in report.checks:
        console.print(f"{output.coloured(f'{one.state:<8}', _COLOURS[one.state])} {one.name}"
                      f"{output.plain(f': {one.skipped}') if one.skipped else ''}")  # fmt: skip
        for finding in one.findings:
            colour = _COLOURS[finding.severity.value]
            console.print(f"  {output.coloured(finding.subject, colour)}: {output.plain(finding.message)}")
            console.print(f"    do: {output.plain(finding.advice)}")
    warnings = sum(finding.severity is Severity.WARNING for finding in report.findings)
    console.print(f"{report.problems} problems, {warnings} warnings")
