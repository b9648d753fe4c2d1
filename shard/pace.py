"""Long work on a replica that gives way to its searches: it rests after every piece, and ends early when it is unwanted.

Knows nothing of what the work is.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from kintsugi.errors import DeadlineExceeded, Unavailable

# A rest is cut into naps, so that whoever closes the replica never waits for long.
_LONGEST_NAP_S = 0.05


@dataclass(frozen=True, slots=True)
class Clocks:
    """`now` is time.monotonic or the like, `busy` the processor time of the calling thread."""

    now: Callable[[], float] = time.monotonic
    busy: Callable[[], float] = time.thread_time
    nap: Callable[[float], None] = time.sleep


class Pace:
    """Belongs to one piece of work in one thread; `stop` may come from any.

    `share`: the part of one core that the work may take. `closing`: the replica closes. `deadline`: in `clocks.now`."""

    def __init__(
        self, share: float, closing: threading.Event, deadline: float | None = None, clocks: Clocks | None = None
    ) -> None:
        self._rest_per_busy = 1 / share - 1
        self._closing = closing
        self._deadline = deadline
        self._clocks = clocks or Clocks()
        self._stopped = threading.Event()
        self._busy_before: float | None = None

    def stop(self) -> None:
        """Nobody waits for the work any more."""
        self._stopped.set()

    def step(self) -> None:
        """Call it between two pieces of work, from the thread that does them. Raises what ends the work."""
        self._check()
        busy = self._clocks.busy()
        if self._busy_before is not None:
            self._rest((busy - self._busy_before) * self._rest_per_busy)
        self._busy_before = self._clocks.busy()

    def _rest(self, seconds: float) -> None:
        until = self._clocks.now() + seconds
        while (left := until - self._clocks.now()) > 0:
            self._clocks.nap(min(left, _LONGEST_NAP_S))
            self._check()

    def _check(self) -> None:
        if self._closing.is_set():
            raise Unavailable("the replica is closing", reason="REPLICA_CLOSED")
        if self._stopped.is_set():
            raise Unavailable("nobody waits for it any more", reason="CANCELLED")
        if self._deadline is not None and self._clocks.now() >= self._deadline:
            raise DeadlineExceeded("the deadline passed before the check was done")
