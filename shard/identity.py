"""The member id of a shard server: drawn once, kept in its data folder, so that a restarted server is the same member."""

import re
import uuid
from pathlib import Path

from shard.durable import write_file

_VALID = re.compile(r"shard-[0-9a-f]{32}")


def member_id(folder: Path) -> str:
    """Reads the id from the folder, or draws and keeps a new one. ValueError when the file holds something else."""
    path = folder / "member-id"
    if not path.exists():
        write_file(path, f"shard-{uuid.uuid4().hex}".encode())
    found = path.read_text().strip()
    if not _VALID.fullmatch(found):
        raise ValueError(f"{path} holds {found!r}, which is not a member id")
    return found
