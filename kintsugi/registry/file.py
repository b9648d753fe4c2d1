"""The registry as this process last saw it, on disk: what it serves from while Redis is down and, of a shard server, what
a registry lost with its Redis is restored from (DESIGN 3a). Written whole, synced and renamed: a crash leaves the old or
the new one.
"""

import asyncio
from pathlib import Path

import msgspec

from kintsugi.durable import DISK, Disk, write_file
from kintsugi.errors import FailedPrecondition
from kintsugi.registry.records import Snapshot

FORMAT_VERSION = 1
# Its name in the data folder of a process.
NAME = "registry.json"


class _Contents(msgspec.Struct, forbid_unknown_fields=True):
    format_version: int
    snapshot: Snapshot


class _Format(msgspec.Struct):
    """What every format has."""

    format_version: int


# Made once: msgspec crashes when two threads are the first to decode the same type.
_READ_FORMAT = msgspec.json.Decoder(_Format)
_READ_CONTENTS = msgspec.json.Decoder(_Contents)


class RegistryFileCorrupt(FailedPrecondition):
    """The file cannot be read: it must not be taken for a registry that was never there."""

    reason = "REGISTRY_FILE_CORRUPT"


class RegistryFile:
    """The file of one process, below its data folder."""

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        self._path = path
        self._disk = disk

    def load(self) -> Snapshot | None:
        """The last snapshot written; None when there never was one; RegistryFileCorrupt when it is unreadable."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        return parse(data, str(self._path))

    def save(self, snapshot: Snapshot) -> None:
        write_file(self._path, serialise(snapshot), self._disk)

    async def persist(self, snapshot: Snapshot) -> None:
        """save, off the event loop."""
        await asyncio.to_thread(self.save, snapshot)


def serialise(snapshot: Snapshot) -> bytes:
    return msgspec.json.encode(_Contents(FORMAT_VERSION, snapshot))


def parse(data: bytes, origin: str) -> Snapshot:
    """RegistryFileCorrupt when it is torn, of a later format, or holds records that this release cannot read."""
    try:
        version = _READ_FORMAT.decode(data).format_version
        if version > FORMAT_VERSION:
            raise RegistryFileCorrupt(
                f"registry from {origin} has format {version}, this release reads up to {FORMAT_VERSION}"
            )
        snapshot = _READ_CONTENTS.decode(data).snapshot
        snapshot.view()
    except (msgspec.DecodeError, KeyError) as error:
        raise RegistryFileCorrupt(f"registry from {origin} cannot be read: {error}") from error
    return snapshot
