"""The member id of a coordinator: drawn once and kept in its data folder, so that a restarted one is the same member.

Nothing is lost with it: a coordinator without its folder is a new member, and the old one is forgotten in time.
"""

import re
import uuid
from pathlib import Path

from kintsugi.durable import write_file
from kintsugi.errors import FailedPrecondition

_VALID = re.compile(r"coordinator-[0-9a-f]{32}")


def member_id(folder: Path) -> str:
    """Reads the id from the folder, or draws and keeps a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "member-id"
    if not path.exists():
        write_file(path, f"coordinator-{uuid.uuid4().hex}".encode())
    found = path.read_text().strip()
    if not _VALID.fullmatch(found):
        raise FailedPrecondition(f"{path} holds {found[:80]!r}, which is not a member id; remove the file to draw one")
    return found
