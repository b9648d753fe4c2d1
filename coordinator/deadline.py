"""How much time a call has left. Every call has a deadline; it travels with all the work done for the call."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kintsugi import limits
from kintsugi.rpc.server import HasTimeRemaining

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of a monotonic clock, in seconds."""

    at: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> "Deadline":
        return cls(clock() + seconds, clock)

    @classmethod
    def of_call(
        cls, context: HasTimeRemaining, clock: Clock, default_s: float = limits.DEFAULT_DEADLINE_S
    ) -> "Deadline":
        """The deadline the caller set, or the default for callers that set none."""
        remaining = context.time_remaining()
        if remaining is None or not math.isfinite(remaining):
            remaining = default_s
        return cls.after(remaining, clock)

    @property
    def remaining_s(self) -> float:
        """Never negative."""
        return max(0.0, self.at - self.clock())

    @property
    def passed(self) -> bool:
        return self.clock() >= self.at

    def earlier_by(self, reserve_s: float) -> "Deadline":
        """Leaves a reserve for what follows: at most a tenth of what remains, so that short deadlines keep a chance."""
        return Deadline(self.at - min(reserve_s, self.remaining_s / 10), self.clock)
