"""The member id of a shard server: drawn once, kept in its data folder, so that a restarted server is the same member."""

import fcntl
import re
import uuid
from pathlib import Path
from typing import IO

from kintsugi.durable import write_file
from kintsugi.errors import FailedPrecondition

_VALID = re.compile(r"shard-[0-9a-f]{32}")


def member_id(folder: Path) -> str:
    """Reads the id from the folder, or draws and keeps a new one. FailedPrecondition when the file holds something
    else."""
    path = folder / "member-id"
    if not path.exists():
        write_file(path, f"shard-{uuid.uuid4().hex}".encode())
    found = path.read_text().strip()
    if not _VALID.fullmatch(found):
        raise FailedPrecondition(f"{path} holds {found!r}, which is not a member id")
    return found


def claim(folder: Path) -> IO[bytes]:
    """Keeps other processes from the data folder until the returned file is closed, or this process ends.
    FailedPrecondition when another one has it: two writers would each believe to know what the databases hold."""
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise FailedPrecondition(
            f"data folder {folder} cannot be claimed, another shard server may be running there: {error.strerror}",
            reason="FOLDER_IN_USE",
        ) from error
    return lock
