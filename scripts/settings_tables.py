"""Writes the settings tables of docs/operations.md from the settings dataclasses.

With --check changes nothing and exits 1 when the document is not current.
"""

import sys
from pathlib import Path

# Run as a script from anywhere: the packages stand beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doc_blocks import run

from coordinator.settings import CoordinatorSettings
from kintsugi.settings import ProcessSettings, SettingDescription, describe
from shard.settings import ShardSettings


def table(settings: list[SettingDescription]) -> str:
    lines = ["| flag | variable | default | bound | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_line, settings)])


def own(settings_type: type) -> list[SettingDescription]:
    """The settings that a process has beyond those of every process."""
    common = {item.name for item in describe(ProcessSettings)}
    return [item for item in describe(settings_type) if item.name not in common]


def _line(item: SettingDescription) -> str:
    if item.required:
        default = "required"
    elif item.default == "":
        default = "empty"
    else:
        default = f"`{str(item.default).lower() if isinstance(item.default, bool) else item.default}`"
    meaning = item.bounds.help.replace("|", "\\|")
    return f"| `{item.flag}` | `{item.variable}` | {default} | {_bound(item)} | {meaning} |"


def _bound(item: SettingDescription) -> str:
    if item.bounds.choices:
        return "one of " + ", ".join(f"`{choice}`" for choice in item.bounds.choices)
    return item.bounds.range_text() or "any"


def main() -> int:
    parts = {
        "settings of every process": table(describe(ProcessSettings)),
        "settings of the coordinator": table(own(CoordinatorSettings)),
        "settings of the shard server": table(own(ShardSettings)),
    }
    return run(__doc__ or "", "docs/operations.md", parts)


if __name__ == "__main__":
    sys.exit(main())
