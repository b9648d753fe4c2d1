"""Named points at which tests kill or pause a process.

KINTSUGI_FAILPOINTS="checkpoint.before_rename=kill@3,replay.after_commit=pause:/path/file" kills the process with SIGKILL
at the third hit of the first point; at the first hit of the second it creates the file and blocks the calling thread
until somebody removes the file. Each point acts once. Without the variable a hit costs one comparison.
Knows nothing about what stands around the points.
"""

import os
import signal
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ENVIRONMENT_VARIABLE = "KINTSUGI_FAILPOINTS"
_PAUSE_POLL_S = 0.01


class Failpoint(StrEnum):
    """Every point there is, so that a misspelt one is refused instead of never reached."""

    WRITES_BEFORE_APPEND = "writes.before_append"
    WRITES_AFTER_APPEND = "writes.after_append"
    DELETE_BY_FILTER_AFTER_MATCH = "delete_by_filter.after_match"
    REPLAY_BEFORE_COMMIT = "replay.before_commit"
    REPLAY_AFTER_COMMIT = "replay.after_commit"
    INDEXER_AFTER_APPLY = "indexer.after_apply"
    INDEXER_BUILD_STEP = "indexer.build_step"
    INDEXER_BEFORE_SWAP = "indexer.before_swap"
    INDEXER_AFTER_SWAP = "indexer.after_swap"
    CHECKPOINT_BEFORE_RENAME = "checkpoint.before_rename"
    CHECKPOINT_AFTER_RENAME = "checkpoint.after_rename"
    RECOVERY_AFTER_REGISTRY = "recovery.after_registry"
    RECOVERY_MID_LOG = "recovery.mid_log"


@dataclass(frozen=True, slots=True)
class Action:
    """What happens at the `at`-th hit: a pause while `pause_file` exists, or a kill when there is none."""

    at: int
    pause_file: Path | None


def parse(text: str) -> dict[Failpoint, Action]:
    """Reads the variable; raises ValueError naming the entry at fault."""
    actions = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, what = entry.partition("=")
        if name not in Failpoint.__members__.values():
            raise ValueError(f"{ENVIRONMENT_VARIABLE} names {name!r}, must be one of {', '.join(Failpoint)}")
        actions[Failpoint(name)] = _parse_action(entry, what)
    return actions


def _parse_action(entry: str, what: str) -> Action:
    verb, separator, count = what.rpartition("@")
    if not separator or not count.isdigit():
        verb, count = what, "1"
    kind, _, file = verb.partition(":")
    if int(count) < 1 or not ((kind == "kill" and not file) or (kind == "pause" and file)):
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE} has {entry!r}, must be NAME=kill[@N] or NAME=pause:FILE[@N], N from 1"
        )
    return Action(at=int(count), pause_file=Path(file) if file else None)


_actions = parse(os.environ.get(ENVIRONMENT_VARIABLE, ""))
_hits: dict[Failpoint, int] = {}
_lock = threading.Lock()


def hit(name: str) -> None:
    """Marks a point. Does nothing unless the environment armed it."""
    if not _actions:
        return
    point = Failpoint(name)
    with _lock:
        _hits[point] = _hits.get(point, 0) + 1
        action = _actions.get(point)
        due = action is not None and _hits[point] == action.at
    if action is not None and due:
        _act(action)


def _act(action: Action) -> None:
    if action.pause_file is None:
        os.kill(os.getpid(), signal.SIGKILL)
        return
    action.pause_file.touch()
    while action.pause_file.exists():
        time.sleep(_PAUSE_POLL_S)
