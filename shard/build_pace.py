"""How much of a core the builds of a shard server may take: all of it while nobody searches, else a share.

A duty cycle: whoever worked for a time rests so long that its part of both is the share. Arithmetic on a clock that is
given; sleeps nowhere and knows nothing of builds.
"""

import threading
import time
from collections.abc import Callable

# Searches are being served until this long after the last one.
SEARCHING_S = 1.0


class BuildPace:
    """For all builds of a process together; from any thread. `share` of one core, above 0, at most 1. `clock`: a monotonic
    one in seconds."""

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._guard = threading.Lock()
        self._searched_at = float("-inf")
        self._rest_until = float("-inf")

    def searched(self) -> None:
        """A client searches."""
        self._searched_at = self._clock()

    def worked(self, seconds: float) -> None:
        """A build took so long. What several owe adds up."""
        rest_s = seconds * (1.0 / self._share - 1.0)
        with self._guard:
            now = self._clock()
            # What was owed before is forgiven while nobody searches: else the first search would stop a long build for long.
            owed_until = now if self._nobody_searches(now) else max(self._rest_until, now)
            self._rest_until = owed_until + rest_s

    def rest_s(self) -> float:
        """How long builds have to rest from now. 0 while nobody searches, whatever they owe."""
        now = self._clock()
        return 0.0 if self._nobody_searches(now) else max(0.0, self._rest_until - now)

    def _nobody_searches(self, now: float) -> bool:
        return now - self._searched_at > SEARCHING_S
