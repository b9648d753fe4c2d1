"""Whether the machines of the members let them work. Pure."""

from collections.abc import Iterator

from kintsugi.doctor.findings import Finding, problem, warning
from kintsugi.sdk.status import MachineStatus

# LMDB maps 8 TiB per replica, whatever is in it.
MAP_BYTES = 2**43
_FEWEST_FILES, _FEW_FILES = 1024, 4096
_LEAST_DISK, _LITTLE_DISK = 2**30, 10 * 2**30
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "beegfs"}
_CLOCK_TOLERANCE_S = 2.0


def check_machine(name: str, machine: MachineStatus, resident_bytes: int, *, shard: bool) -> Iterator[Finding]:
    """`name` is who told it, `shard` says that it hosts replicas."""
    yield from _files(name, machine)
    yield from _memory(name, machine, resident_bytes)
    if shard:
        yield from _address_space(name, machine)
        yield from _disk(name, machine)


def _files(name: str, machine: MachineStatus) -> Iterator[Finding]:
    most = machine.open_files_limit
    advice = (
        "raise it: ulimit -n 65536 before the start, LimitNOFILE= in systemd, --ulimit nofile= in a container engine"
    )
    if most and machine.open_files > 0.8 * most:
        yield problem(name, f"it has {machine.open_files} of {most} files and connections open", advice)
    elif most and most < _FEWEST_FILES:
        yield problem(name, f"it may open {most} files and connections only, less than {_FEWEST_FILES}", advice)
    elif most and most < _FEW_FILES:
        yield warning(name, f"it may open {most} files and connections, less than {_FEW_FILES}", advice)


def _memory(name: str, machine: MachineStatus, resident_bytes: int) -> Iterator[Finding]:
    most = machine.memory_limit_bytes
    if most and resident_bytes > 0.75 * most:
        kind = problem if resident_bytes > 0.9 * most else warning
        yield kind(
            name,
            f"it holds {_mib(resident_bytes)} of the {_mib(most)} that its container may use; beyond, it is killed",
            "raise the memory limit of the container, or spread the shards over more shard servers",
        )


def _address_space(name: str, machine: MachineStatus) -> Iterator[Finding]:
    most = machine.address_space_limit_bytes
    if most and most < 2 * MAP_BYTES:
        yield problem(
            name,
            f"its address space is limited to {_mib(most)}; the database of each replica maps {MAP_BYTES // 2**40} TiB of it",
            "remove the limit: ulimit -v unlimited before the start, LimitAS=infinity in systemd",
        )


def _disk(name: str, machine: MachineStatus) -> Iterator[Finding]:
    kind = machine.filesystem
    if kind in _NETWORK:
        yield problem(
            name,
            f"its data folder is on {kind}, a network file system, on which databases get corrupted",
            "move the data folder to a local disk or a block volume",
        )
    elif kind in ("tmpfs", "ramfs", "overlay"):
        yield warning(
            name,
            f"its data folder is on {kind}, which does not survive a restart of the machine or container",
            "mount a disk or volume and name it in --data",
        )
    free = machine.disk_free_bytes
    if machine.disk_total_bytes and free < _LEAST_DISK:
        yield problem(name, f"its disk has {_mib(free)} free", "make room, or move the data folder to a larger disk")
    elif machine.disk_total_bytes and free < _LITTLE_DISK and free < machine.disk_total_bytes / 10:
        yield warning(name, f"its disk has {_mib(free)} free", "make room before copies of replicas need it")


def check_clock(name: str, ahead_s: float, asked_for_s: float) -> Iterator[Finding]:
    """`ahead_s` of this machine's clock, known as exactly as the asking took long."""
    if abs(ahead_s) > _CLOCK_TOLERANCE_S + asked_for_s:
        way = "ahead of" if ahead_s > 0 else "behind"
        yield warning(
            name,
            f"its clock is {abs(ahead_s):,.0f} s {way} this machine's, so that times in answers and logs mislead",
            "synchronise the clocks by NTP",
        )


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
