"""What the machine allows a process: its clock, limits, memory and disk, for `kintsugi status` and `kintsugi doctor`.

Asks the operating system, which may block. What a system does not tell is 0 or ''. Judges nothing.
"""

import re
import resource
import shutil
import time
from pathlib import Path

from kintsugi.v1 import cluster_pb2

_PROC = Path("/proc/self")
_CGROUPS = Path("/sys/fs/cgroup")
# Version 1 of cgroups says "no limit" with a number near 2**63.
_NO_LIMIT = 2**60


def machine_status(folder: Path) -> cluster_pb2.MachineStatus:
    """What this process may use; `folder` is where its data is."""
    told = cluster_pb2.MachineStatus(
        open_files_limit=_limit(resource.RLIMIT_NOFILE),
        open_files=_open_files(),
        address_space_limit_bytes=_limit(resource.RLIMIT_AS),
        memory_limit_bytes=memory_limit_bytes(),
        filesystem=filesystem_of(folder),
    )
    usage = shutil.disk_usage(_existing(folder))
    told.disk_total_bytes, told.disk_free_bytes = usage.total, usage.free
    told.clock.FromNanoseconds(time.time_ns())
    return told


def _limit(kind: int) -> int:
    """The limit that holds, 0 for none."""
    soft = resource.getrlimit(kind)[0]
    return 0 if soft == resource.RLIM_INFINITY else soft


def _open_files() -> int:
    folder = _PROC / "fd"
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


def _existing(folder: Path) -> Path:
    """The folder, or what exists above it."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())


def memory_limit_bytes(groups: Path = _CGROUPS, membership: Path = _PROC / "cgroup") -> int:
    """The memory that the tightest control group around this process allows, 0 for no bound."""
    files = [groups / "memory.max", groups / "memory" / "memory.limit_in_bytes"]
    for line in membership.read_text().splitlines() if membership.exists() else ():
        _, controllers, path = line.split(":", 2)
        parts = Path(path.lstrip("/")).parts
        for depth in range(1, len(parts) + 1):
            if not controllers:
                files.append(groups.joinpath(*parts[:depth], "memory.max"))
            elif controllers == "memory":
                files.append(groups.joinpath("memory", *parts[:depth], "memory.limit_in_bytes"))
    found = [int(text) for file in files if (text := _read(file)).isdigit() and int(text) < _NO_LIMIT]
    return min(found, default=0)


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def filesystem_of(folder: Path, mounts: Path = _PROC / "mountinfo") -> str:
    """The type of the file system that holds the folder, such as "ext4" or "nfs4"."""
    wanted, found, depth = folder.resolve(), "", -1
    for line in _read(mounts).splitlines():
        before, _, after = line.partition(" - ")
        mounted = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        if wanted.is_relative_to(mounted) and len(mounted.parts) >= depth:
            found, depth = after.split()[0], len(mounted.parts)
    return found
