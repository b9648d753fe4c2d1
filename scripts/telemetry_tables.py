"""Writes the tables of docs/telemetry.md from the names in kintsugi/telemetry.

With --check changes nothing and exits 1 when the document is not current.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

# Run as a script from anywhere: the packages stand beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doc_blocks import run

from kintsugi.telemetry.log_events import LogEvent
from kintsugi.telemetry.metric_names import CATALOGUE, Metric, On
from kintsugi.telemetry.name import Name
from kintsugi.telemetry.trace_names import Attribute, SpanEvent


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def names(kind: type[Name], head: str) -> str:
    return table((head, "meaning"), ((f"`{member.value}`", member.meaning) for member in kind))


def metrics(on: On) -> str:
    return table(("metric", "kind", "labels", "meaning"), (_metric(metric) for metric in CATALOGUE if metric.on is on))


def _metric(metric: Metric) -> tuple[str, ...]:
    return (f"`{metric.name}`", metric.kind.value, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning)


def main() -> int:
    parts = {
        "span events": names(SpanEvent, "event"),
        "attributes": names(Attribute, "attribute"),
        **{f"metrics of {on.value}": metrics(on) for on in On},
        "log events": names(LogEvent, "event"),
    }
    return run(__doc__ or "", "docs/telemetry.md", parts)


if __name__ == "__main__":
    sys.exit(main())
