"""Restarts what dies, waiting longer each time: a process that cannot live must not burn the machine.

Thread-free: whoever runs the cluster calls poll() every now and then. On real clusters Kubernetes does this.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
# A process that lived this long was well: its next crash starts counting anew.
HEALTHY_AFTER_S = 60.0


class Cluster(Protocol):
    """What supervision needs of a cluster."""

    def names(self) -> list[str]: ...
    def exit_code(self, name: str) -> int | None: ...
    def start_process(self, name: str) -> None: ...


@dataclass(slots=True)
class _Life:
    started_at: float
    crashes: int = 0
    restart_at: float | None = None


def delay_s(crashes: int) -> float:
    """The wait before the restart after the n-th crash in a row, from 1."""
    return float(min(FIRST_DELAY_S * 2 ** (crashes - 1), MAX_DELAY_S))


@dataclass(slots=True)
class Supervisor:
    """`report` gets one sentence per crash and per restart."""

    cluster: Cluster
    report: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _lives: dict[str, _Life] = field(default_factory=dict)

    def poll(self) -> None:
        """Notices crashes and restarts what is due."""
        now = self.clock()
        for name in self.cluster.names():
            life = self._lives.setdefault(name, _Life(started_at=now))
            code = self.cluster.exit_code(name)
            if code is None:
                continue
            if life.restart_at is None:
                self._schedule(name, life, code, now)
            elif now >= life.restart_at:
                self._restart(name, life, now)

    def _schedule(self, name: str, life: _Life, code: int, now: float) -> None:
        life.crashes = 1 if now - life.started_at >= HEALTHY_AFTER_S else life.crashes + 1
        life.restart_at = now + delay_s(life.crashes)
        self.report(f"{name} exited with status {code}, restarting in {delay_s(life.crashes):g} s")

    def _restart(self, name: str, life: _Life, now: float) -> None:
        self.cluster.start_process(name)
        life.started_at, life.restart_at = now, None
        self.report(f"{name} restarted")
