"""Named points at which tests kill, pause or slow a process.

KINTSUGI_FAILPOINTS="checkpoint.before_rename=kill@3,replay.after_commit=pause:/path/file" kills the process with SIGKILL
at the third hit of the first point; at the first hit of the second it creates the file and blocks the calling thread
until somebody removes the file. Each of these acts once. "searcher.batch=delay:5" holds the calling thread for 5 ms at
every hit, "searcher.batch=delay:5:/path/file" only while the file exists: service time that is switched on and off.
Without the variable a hit costs one comparison. Knows nothing about what stands around the points.
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
    SEARCHER_BATCH = "searcher.batch"


@dataclass(frozen=True, slots=True)
class Kill:
    """Ends the process at the `at`-th hit."""

    at: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Blocks the calling thread at the `at`-th hit, from creating `file` until somebody removes it."""

    at: int
    file: Path


@dataclass(frozen=True, slots=True)
class Delay:
    """Holds the calling thread at every hit; with a file, at those while it exists."""

    seconds: float
    file: Path | None


Action = Kill | Pause | Delay


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
    kind, _, rest = what.partition(":")
    action = _parse_delay(rest) if kind == "delay" else _parse_once(what)
    if action is None:
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE} has {entry!r}, must be NAME=kill[@N] or NAME=pause:FILE[@N], N from 1, "
            "or NAME=delay:MILLISECONDS[:FILE]"
        )
    return action


def _parse_once(what: str) -> Action | None:
    verb, separator, count = what.rpartition("@")
    if not separator or not count.isdigit():
        verb, count = what, "1"
    kind, _, file = verb.partition(":")
    if int(count) < 1:
        return None
    if kind == "pause" and file:
        return Pause(int(count), Path(file))
    return Kill(int(count)) if verb == "kill" else None


def _parse_delay(rest: str) -> Action | None:
    milliseconds, separator, file = rest.partition(":")
    if not milliseconds.isdigit() or bool(separator) != bool(file):
        return None
    return Delay(int(milliseconds) / 1000, Path(file) if file else None)


_actions = parse(os.environ.get(ENVIRONMENT_VARIABLE, ""))
_hits: dict[Failpoint, int] = {}
_lock = threading.Lock()


def hit(name: str) -> None:
    """Marks a point. Does nothing unless the environment armed it."""
    if not _actions:
        return
    point = Failpoint(name)
    action = _actions.get(point)
    if isinstance(action, Delay):
        _delay(action)
    elif action is not None and _nth_hit(point) == action.at:
        _act(action)


def _nth_hit(point: Failpoint) -> int:
    with _lock:
        _hits[point] = _hits.get(point, 0) + 1
        return _hits[point]


def _delay(action: Delay) -> None:
    if action.file is None or action.file.exists():
        time.sleep(action.seconds)


def _act(action: Kill | Pause) -> None:
    if isinstance(action, Kill):
        os.kill(os.getpid(), signal.SIGKILL)
        return
    action.file.touch()
    while action.file.exists():
        time.sleep(_PAUSE_POLL_S)
