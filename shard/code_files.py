"""The files of codes by row that belong to index versions: codes-v00000007.scan, beside the checkpoints.

They go on changing after a checkpoint that names them, which does no harm: whatever changed since is in the journal behind
the checkpoint, and is written again from there. A file lives until its version neither serves nor is named by a checkpoint.
"""

import re
from collections.abc import Collection
from pathlib import Path

_NAME = re.compile(r"codes-v(\d{8})\.\w+")


class CodeFiles:
    """Those of one (replica, model)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stem(self, number: int) -> Path:
        """Where the files of a version are, but for their suffixes."""
        return self._folder / f"codes-v{number:08d}"

    def remove(self, number: int) -> None:
        """Removes the files of a version that nobody will search."""
        self._remove([path for path, of in self._present() if of == number])

    def remove_all_but(self, numbers: Collection[int], below: int | None = None) -> None:
        """Removes the files of all other versions; only of those `below` a number if one is given."""
        self._remove([path for path, of in self._present() if of not in numbers and (below is None or of < below)])

    def _present(self) -> list[tuple[Path, int]]:
        return [(path, int(match[1])) for path in self._folder.iterdir() if (match := _NAME.fullmatch(path.name))]

    def _remove(self, paths: list[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
