"""The state of an interrupted transfer as a small JSON file, replaced atomically and durably.

Blocking. Knows nothing of what is transferred.
"""

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from kintsugi.errors import FailedPrecondition

State = TypeVar("State", bound=msgspec.Struct)


def load(path: Path, kind: type[State]) -> State | None:
    """What was saved, None when nothing was. FailedPrecondition when it is no state of this kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise FailedPrecondition(
            f"state file {path} cannot be read: {error}; remove it to begin again", reason="STATE_UNREADABLE"
        ) from error


def save(path: Path, state: msgspec.Struct) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise FailedPrecondition(
            f"state file {path} cannot be written: {error}; name another one", reason="STATE_UNWRITABLE"
        ) from error
