"""Where figures come from, and how a table of them is saved: as JSON for machines, as markdown for people."""

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import results

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """All that is needed to judge figures, or to repeat them."""

    command: list[str]
    commit: str
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    format_version: int = FORMAT_VERSION

    @classmethod
    def of(cls, command: list[str]) -> "Origin":
        """Of what is about to be measured here."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(["python", "-m", "bench", *command], results.commit(), date, results.machine(), results.versions())

    @property
    def heading(self) -> str:
        machine = self.machine
        return (
            f"commit {self.commit}, {self.date}; {machine['cores']} cores {machine['processor']}, load before "
            f"{machine['load_average'][0]:.2f}"
        )


def columns(head: list[str], rows: list[list[str]]) -> str:
    """A markdown table, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def save(folder: Path, kind: str, origin: Origin, report: Any, text: str) -> Path:
    """Writes a report, a dataclass with its origin inside, and its tables beside it. Returns the path of the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{origin.date.replace(':', '').removesuffix('+0000')}-{kind}.json"
    path.write_text(json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    path.with_suffix(".md").write_text(text + "\n")
    return path
