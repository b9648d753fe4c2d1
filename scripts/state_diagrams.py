"""Draws the state diagrams of ARCHITECTURE.md from the tables in code, so that the two cannot disagree.

With --check changes nothing and exits 1 when the document is not current.
"""

import sys
from collections.abc import Mapping
from enum import Enum, StrEnum
from pathlib import Path
from typing import TypeVar

# Run as a script from anywhere: the packages stand beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doc_blocks import run

from kintsugi import lifecycle
from kintsugi.registry import index_versions, replicas, upgrades
from kintsugi.registry.records import ReplicaState, UpgradeState
from shard.standing import Standing, way_on

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


def diagram(
    transitions: Mapping[State, Mapping[Event, State]],
    first: State | None = None,
    entries: Mapping[Event, State] | None = None,
) -> str:
    """A Mermaid diagram, one line per transition, in the order of the table. It begins with `first`, or with `entries`."""
    names = {state: state.name for state in transitions}
    lines = ["```mermaid", "stateDiagram-v2"]
    if first is not None:
        lines.append(f"    [*] --> {names[first]}")
    lines += [f"    [*] --> {names[state]}: {event.value}" for event, state in (entries or {}).items()]
    for state, exits in transitions.items():
        lines += [f"    {names[state]} --> {names[after]}: {event.value}" for event, after in exits.items()]
        if not exits:
            lines.append(f"    {names[state]} --> [*]")
    return "\n".join([*lines, "```"])


def ways_table() -> str:
    """What a replica does in each standing: the decision of shard/standing.py, spelled out."""
    lines = ["| standing | in sync | not in sync |", "|---|---|---|"]
    for standing in Standing:
        ways = [way_on(standing, in_sync=in_sync) for in_sync in (True, False)]
        lines.append(f"| {_name(standing)} | " + " | ".join(_name(way) for way in ways) + " |")
    return "\n".join(lines)


def _name(member: Enum) -> str:
    return f"`{member.name}`"


def main() -> int:
    parts = {
        "lifecycle": diagram(lifecycle.TRANSITIONS, lifecycle.LifecycleState.STARTING),
        "replica states": diagram(replicas.TRANSITIONS, ReplicaState.IN_SYNC),
        "index versions": diagram(index_versions.TRANSITIONS, entries=index_versions.ENTRIES),
        "upgrades": diagram(upgrades.TRANSITIONS, UpgradeState.PLANNED),
        "ways": ways_table(),
    }
    return run(__doc__ or "", "ARCHITECTURE.md", parts)


if __name__ == "__main__":
    sys.exit(main())
