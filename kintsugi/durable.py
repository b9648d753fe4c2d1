"""Puts files on the disk so that they survive a power cut: sync, rename, sync the folder.

The system calls are injected as a Disk, so that a test can record their order or make them fail. Knows nothing of
what the files mean.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def _sync_path(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    _sync_path(path, os.O_RDONLY)


def _sync_folder(path: Path) -> None:
    _sync_path(path, os.O_RDONLY | os.O_DIRECTORY)


def _rename(source: Path, target: Path) -> None:
    source.replace(target)


@dataclass(frozen=True, slots=True)
class Disk:
    """The calls that make files durable."""

    sync_file: Callable[[Path], None] = _sync_file
    sync_folder: Callable[[Path], None] = _sync_folder
    rename: Callable[[Path, Path], None] = _rename


DISK = Disk()


def write_file(path: Path, data: bytes, disk: Disk = DISK) -> None:
    """Replaces a file: after the return the new content is on the disk, before it the old or the new one is."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    publish_file(temporary, path, disk)


def publish_file(temporary: Path, target: Path, disk: Disk = DISK) -> None:
    """Gives a file that is written its final name, durably."""
    disk.sync_file(temporary)
    disk.rename(temporary, target)
    disk.sync_folder(target.parent)


def publish_folder(temporary: Path, target: Path, disk: Disk = DISK) -> None:
    """Renames a folder whose files are synced already to its final name, durably."""
    disk.sync_folder(temporary)
    disk.rename(temporary, target)
    disk.sync_folder(target.parent)


def remove_folder(path: Path, disk: Disk = DISK) -> None:
    """Removes a folder. A crash in between leaves a part of it, which its reader must take for torn."""
    shutil.rmtree(path, ignore_errors=True)
    disk.sync_folder(path.parent)
