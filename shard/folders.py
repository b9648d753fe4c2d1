"""Where a shard server keeps what, below its data folder.

member-id                     who it is
registry.json                 the registry as last seen
artifacts/<sha256>            projections and anchors of upgrades
replicas/<uid>/<shard>/db     the database of a replica; db.new is a verified copy about to take its place
replicas/<uid>/<shard>/index  checkpoints of its index versions
diverged/                     what replicas held that their shard's history does not: for people
orphaned/                     replicas that a restored registry does not know: for people
corrupt/                      databases that could not be read: for people
"""

import time
from dataclasses import dataclass
from pathlib import Path

from kintsugi.durable import DISK, Disk, publish_folder, remove_folder
from kintsugi.registry.file import NAME as REGISTRY_FILE

# Copies for peers are made beside the database; a crash leaves them behind.
SNAPSHOT_PREFIX = "snapshot-"


@dataclass(frozen=True, slots=True)
class ReplicaFolder:
    """The folder of one replica. All calls block on the disk."""

    path: Path
    disk: Disk = DISK

    @property
    def database(self) -> Path:
        return self.path / "db"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def incoming(self) -> Path:
        """Where a copy from a peer arrives; worth nothing until accept_copy."""
        return self.path / "incoming"

    @property
    def _verified(self) -> Path:
        return self.path / "db.new"

    def prepare(self) -> None:
        """Finishes a swap that a crash interrupted, and clears what is worth nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._verified.exists():
            self.swap()
        for worthless in (self.incoming, *self.path.glob(f"{SNAPSHOT_PREFIX}*")):
            if worthless.exists():
                remove_folder(worthless, self.disk)

    def accept_copy(self) -> None:
        """Says, durably, that the incoming copy is complete and verified."""
        if self._verified.exists():
            remove_folder(self._verified, self.disk)
        publish_folder(self.incoming, self._verified, self.disk)

    def swap(self) -> None:
        """Puts the verified copy in the place of the database, whose index is then worth nothing. May be repeated."""
        for outdated in (self.database, self.index):
            if outdated.exists():
                remove_folder(outdated, self.disk)
        publish_folder(self._verified, self.database, self.disk)


@dataclass(frozen=True, slots=True)
class Folders:
    """The data folder of a shard server."""

    root: Path

    @property
    def registry(self) -> Path:
        return self.root / REGISTRY_FILE

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def diverged(self) -> Path:
        return self.root / "diverged"

    def replica(self, collection_uid: str, shard: int) -> ReplicaFolder:
        return ReplicaFolder(self.root / "replicas" / collection_uid / str(shard))

    def replicas(self) -> list[tuple[str, int]]:
        """Which replicas there are folders of."""
        return sorted(
            (path.parent.name, int(path.name)) for path in self.root.glob("replicas/*/*") if path.name.isdecimal()
        )

    def set_aside(self, source: Path, kind: str) -> Path:
        """Moves a folder to `kind`/ ("orphaned", "corrupt") under a name that tells what and when it was."""
        relative = source.relative_to(self.root / "replicas").parts
        target = self.root / kind / "-".join((*relative, str(time.time_ns())))
        target.parent.mkdir(parents=True, exist_ok=True)
        DISK.rename(source, target)
        DISK.sync_folder(target.parent)
        return target
