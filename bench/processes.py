"""What the kernel tells about a process, and where it may run. Linux only: reads /proc.

CPU time has the resolution of a clock tick, 10 ms: measure over seconds.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_SETTLED_S = 900.0
# A second in which no process used more than this: no build, replay or checkpoint runs.
_IDLE_CPU_S = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """`resident_bytes` counts file pages that are mapped and can be dropped, such as those of a database; `anonymous`
    is what the process cannot do without."""

    resident_bytes: int
    anonymous_bytes: int


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads since the start of the process."""
    return parse_cpu_seconds((_PROC / str(pid) / "stat").read_text(), _TICKS_PER_S)


def parse_cpu_seconds(stat: str, ticks_per_s: int) -> float:
    # The name of the program is in parentheses and may hold spaces: count behind the last one.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks_per_s


def memory(pid: int) -> Memory:
    return parse_memory((_PROC / str(pid) / "smaps_rollup").read_text())


def parse_memory(rollup: str) -> Memory:
    kilobytes = {}
    for line in rollup.splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            kilobytes[name] = int(value.split()[0])
    return Memory(kilobytes["Rss"] * 1024, kilobytes["Anonymous"] * 1024)


def cores() -> list[int]:
    """Those this process may use."""
    return sorted(os.sched_getaffinity(0))


def core_of(number: int) -> int:
    """The core for the n-th shard server, and for the n-th raw engine."""
    usable = cores()
    return usable[number % len(usable)]


def pin(pid: int, core: int) -> None:
    """Keeps a process on one core: each of its threads, for the kernel knows only those."""
    for task in (_PROC / str(pid) / "task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def busy_seconds() -> float:
    """CPU time that anybody used on this machine since it started."""
    return parse_busy_seconds((_PROC / "stat").read_text(), _TICKS_PER_S)


def parse_busy_seconds(stat: str, ticks_per_s: int) -> float:
    # user nice system idle iowait irq softirq steal; guest time is part of user time
    user, nice, system, _idle, _iowait, *others = (int(field) for field in stat.splitlines()[0].split()[1:9])
    return (user + nice + system + sum(others)) / ticks_per_s


class CpuMeter:
    """CPU seconds of some processes, and of all others, since the meter was made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._busy_before = busy_seconds()
        self._before = {name: cpu_seconds(pid) for name, pid in pids.items()}

    def seconds(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}

    def seconds_elsewhere(self) -> float:
        """What disturbed the measurement."""
        return max(0.0, busy_seconds() - self._busy_before - sum(self.seconds().values()))


def wait_idle(pids: Mapping[str, int]) -> float:
    """Waits until these processes have nothing left to do, and returns for how long."""
    started = time.monotonic()
    while time.monotonic() < started + _SETTLED_S:
        meter = CpuMeter(pids)
        time.sleep(1.0)
        if max(meter.seconds().values()) <= _IDLE_CPU_S:
            return time.monotonic() - started
    raise TimeoutError(f"{', '.join(pids)} are still busy after {_SETTLED_S:g} s")
