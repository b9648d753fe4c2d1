"""What this coordinator has experienced with each replica server: calls in flight, failures, latencies. From that, who
is asked first, and when a second try is due. Purely local, so it needs no registry and no agreement.

A replica is slow when it lately takes longer than one waits before a second try: it would need one each time. It is asked
last, but for a probe now and then, while there is a second try to pay it with. And a second try comes when the best replica
of the shard would have answered, not when the slow one usually does.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from coordinator.deadline import Clock
from coordinator.plan import Target

_LATENCIES_KEPT = 64
_FIRST_PENALTY_S = 0.2
_MAX_PENALTY_S = 5.0
# What a replica takes lately is the median of so many answers: a single late one does not make it slow.
_LATELY = 5
_PROBE_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class HedgeSettings:
    """`share`: second tries per first try, at most; raise it to cut the tail further, lower it to spare the shards.
    The delay before one is `latency_factor` times the 95th percentile of the recent answers of the replica, or of another
    one of the shard where that is shorter."""

    share: float = 0.05
    burst: float = 10.0
    latency_factor: float = 1.5
    first_delay_s: float = 0.1
    min_delay_s: float = 0.01
    max_delay_s: float = 1.0


@dataclass(slots=True)
class _Experience:
    in_flight: int = 0
    failures: int = 0
    avoided_until: float = float("-inf")
    last_asked: int = 0
    asked_at: float = float("-inf")
    # Of the first call since the last answer, None when there was none.
    silent_since: float | None = None
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))
    pace: "_Pace | None" = None

    def took(self, seconds: float) -> None:
        self.latencies.append(seconds)
        self.pace = None

    def known_pace(self) -> "_Pace | None":
        """None before the first answer. Worked out when somebody asks: a shard of one replica leaves nothing to choose."""
        if self.pace is None and self.latencies:
            ordered, latest = sorted(self.latencies), sorted(islice(reversed(self.latencies), _LATELY))
            self.pace = _Pace(latest[len(latest) // 2], ordered[int(0.95 * (len(ordered) - 1))])
        return self.pace


@dataclass(frozen=True, slots=True)
class _Pace:
    """`lately_s`: the median of the last few answers; `late_s`: the 95th percentile of all that are kept."""

    lately_s: float
    late_s: float


class ReplicaLoad:
    """Bounded by the number of addresses that the registry ever named while this process ran."""

    def __init__(self, clock: Clock, hedging: HedgeSettings | None = None) -> None:
        self._clock = clock
        self._hedging = hedging or HedgeSettings()
        self._known: dict[str, _Experience] = {}
        self._asked = 0
        self._second_tries = self._hedging.burst

    def order(self, targets: Sequence[Target]) -> list[Target]:
        """The best first: without recent failures, not slow, then with the fewest calls in flight, then the longest
        unasked."""
        if len(targets) < 2:
            return list(targets)
        now = self._clock()
        slow_s = self._delay_s(one for one in map(self._of, targets) if one.avoided_until <= now)

        def badness(target: Target) -> tuple[bool, bool, int, int]:
            known = self._of(target)
            pace = known.known_pace()
            is_slow = pace is not None and pace.lately_s > slow_s and not self._is_due(known, now)
            return (known.avoided_until > now, is_slow, known.in_flight, known.last_asked)

        return sorted(targets, key=badness)

    def asked(self, target: Target) -> None:
        """`left` follows, whatever becomes of it."""
        known = self._of(target)
        self._asked += 1
        known.last_asked = self._asked
        known.asked_at = self._clock()
        known.in_flight += 1
        if known.silent_since is None:
            known.silent_since = known.asked_at
        if known.failures:  # one probe at a time, until one succeeds
            known.avoided_until = known.asked_at + _penalty_s(known.failures)

    def left(self, target: Target) -> None:
        """The call has ended, or nobody waits for it any more."""
        self._of(target).in_flight -= 1

    def succeeded(self, target: Target, took_s: float | None) -> None:
        """`took_s` is None when the time says nothing about the replica, as after waiting for a write."""
        known = self._of(target)
        known.failures = 0
        known.avoided_until = float("-inf")
        known.silent_since = self._clock() if known.in_flight else None
        if took_s is not None:
            known.took(took_s)

    def failed(self, target: Target) -> None:
        """Avoids the replica for a while, longer after each failure in a row. It is still asked when all others fail."""
        known = self._of(target)
        known.failures += 1
        known.avoided_until = self._clock() + _penalty_s(known.failures)

    def outrun(self, target: Target, waited_s: float | None) -> None:
        """Another replica was asked later and answered sooner, or nobody answered in time: the replica takes longer than it was
        waited for, None as for `succeeded`. It has failed only if it has not answered anybody for long."""
        known = self._of(target)
        if waited_s is not None:
            known.took(waited_s)
        if self._is_silent(known):
            self.failed(target)

    def second_try_delay_s(self, target: Target, others: Sequence[Target] = ()) -> float:
        """How long to wait for `target` before one of `others` is asked as well."""
        now = self._clock()
        return self._delay_s([self._of(target), *(one for one in map(self._of, others) if one.avoided_until <= now)])

    def earn_second_try(self) -> None:
        """Counts a first try, each of which allows a share of a second one."""
        self._second_tries = min(self._second_tries + self._hedging.share, self._hedging.burst)

    def may_compete(self, target: Target) -> bool:
        """Whether a slow call may get a second try: out of the bounded share, or, beyond it, because the replica is not
        merely slow: it has not answered anything for long."""
        if self._second_tries >= 1:
            self._second_tries -= 1
            return True
        return self._is_silent(self._of(target))

    @property
    def patience_s(self) -> float:
        """How long to go on waiting after a second try was not granted."""
        return self._hedging.max_delay_s

    def _delay_s(self, replicas: Iterable[_Experience]) -> float:
        """Of a second try beside any of these: what the best of them shows."""
        settings = self._hedging
        best_s = min((pace.late_s for one in replicas if (pace := one.known_pace()) is not None), default=None)
        if best_s is None:
            return settings.first_delay_s
        return min(max(settings.latency_factor * best_s, settings.min_delay_s), settings.max_delay_s)

    def _is_silent(self, known: _Experience) -> bool:
        return known.silent_since is not None and self._clock() - known.silent_since >= self._hedging.max_delay_s

    def _is_due(self, known: _Experience, now: float) -> bool:
        """Whether a slow replica is to be probed."""
        return now - known.asked_at >= _PROBE_AFTER_S and not known.in_flight and self._second_tries >= 1

    def _of(self, target: Target) -> _Experience:
        return self._known.setdefault(target.address, _Experience())


def _penalty_s(failures: int) -> float:
    return min(_FIRST_PENALTY_S * float(1 << min(failures - 1, 10)), _MAX_PENALTY_S)
