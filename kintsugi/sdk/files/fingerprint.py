"""Tells whether files are still those that an interrupted import began with."""

import hashlib
from pathlib import Path

_SAMPLE_BYTES = 2**16


def fingerprint(*files: Path) -> str:
    """Changes when a file is replaced or edited; the same for a file that was moved or only touched. Reads little:
    sizes, and both ends of each file."""
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as stream:
            digest.update(f"{size} ".encode())
            digest.update(stream.read(_SAMPLE_BYTES))
            stream.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:32]
