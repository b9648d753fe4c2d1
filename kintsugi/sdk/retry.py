"""Which failures are worth another attempt, and how long to wait before it. Pure.

Retried are UNAVAILABLE and RESOURCE_EXHAUSTED, of reads and of writes alike: every attempt of a write carries the same
request id, so the cluster applies it once. Everything else would fail again or has an unknown outcome at the deadline.
When time runs out, what the cluster last said is what the caller hears.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from kintsugi.errors import DeadlineExceeded, KintsugiError, ResourceExhausted, Unavailable

# gRPC itself says so of a message over the bound of either side, without asking the server; it will never fit.
_TOO_LARGE = "message larger than max"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff: the n-th wait is drawn evenly from the upper half of
    min(max_delay_s, first_delay_s * multiplier ** n), and never shorter than the server asked for.

    first_delay_s: lower it where a lost attempt costs more than load on a struggling cluster.
    max_delay_s: raise it when many clients wait for the same cluster; lower it to notice sooner that it is back.
    """

    first_delay_s: float = 0.05
    max_delay_s: float = 1.0
    multiplier: float = 2.0

    def delay_s(self, attempt: int, error: KintsugiError | None, draw: Callable[[], float] = random.random) -> float:
        """The wait after attempt number `attempt` (from 0) failed with `error`; `draw` yields 0 to 1."""
        # The exponent is bounded because a float overflows long before a patient caller gives up.
        backoff_s = min(self.max_delay_s, self.first_delay_s * self.multiplier ** min(attempt, 32))
        asked_s = error.retry_delay_s if error is not None and error.retry_delay_s is not None else 0.0
        return max(backoff_s * (1 + draw()) / 2, asked_s)


def is_retryable(error: KintsugiError) -> bool:
    if isinstance(error, ResourceExhausted):
        return _TOO_LARGE not in error.message
    return isinstance(error, Unavailable)


def at_the_deadline(last: KintsugiError, told: KintsugiError | None, *, changes: bool) -> KintsugiError:
    """What to raise when time ran out with `last`: `told`, what the cluster last said of itself, says more than a
    timeout or a lost connection. After a call that `changes` something, `last` still says what is known of its outcome."""
    if told is None or told is last:
        return last
    if not changes:
        return told
    kind = DeadlineExceeded if isinstance(last, DeadlineExceeded) else Unavailable
    both = kind(
        f"{last.message}; before that: {told.message}",
        field=told.field,
        reason=last.reason,
        retry_delay_s=told.retry_delay_s,
    )
    both.metadata = {**told.metadata, **last.metadata}
    return both
