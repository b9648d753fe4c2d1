"""What share of the true best hits the live searches of a replica find: samples them, and keeps what their check found.

1. A window's samples are a fair draw of all queries that the index answered in it, whatever their number.
2. The recall forgets: a few hundred searches are remembered, older ones fade. It begins anew with an index version, and when the
   index has grown: what a small index found says little of a large one.
3. Noting a search takes microseconds, on the thread that searches. Searches by group are left out.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shard.recall import Found, Probe
from shard.reservoir import Reservoir
from shard.search_call import SearchCall, ShardHits

# The mean of so many searches; from then on each new one replaces its part of the mean, so that older ones fade.
_REMEMBERED = 500
# An index that holds so many times the vectors of when its recall began is another one.
_GROWN = 1.25


# A check costs about the same for one sample as for twenty: so many are waited for, but not for longer than a minute.
_SAMPLES_PER_CHECK = 20
_LONGEST_WINDOW_S = 60.0
_SHORTEST_WINDOW_S = 1.0


def window_s(samples_per_minute: float) -> float:
    """How long samples are gathered between two checks."""
    wanted = 60 * _SAMPLES_PER_CHECK / samples_per_minute if samples_per_minute else math.inf
    return min(max(wanted, _SHORTEST_WINDOW_S), _LONGEST_WINDOW_S)


def samples_per_window(samples_per_minute: float) -> int:
    return math.ceil(samples_per_minute * window_s(samples_per_minute) / 60)


@dataclass(frozen=True, slots=True)
class LiveRecall:
    """The mean recall of some searches; `queries` is how many it rests on."""

    recall: float
    queries: int


@dataclass(frozen=True, slots=True)
class VersionRecall:
    """What is known of an index version: of searches without a filter, and of those with one. `vectors`: those that it held
    when the first of them was measured, 0 for unknown."""

    index_version: int
    plain: LiveRecall | None = None
    filtered: LiveRecall | None = None
    vectors: int = 0

    @property
    def all(self) -> LiveRecall | None:
        known = [one for one in (self.plain, self.filtered) if one is not None]
        queries = sum(one.queries for one in known)
        return LiveRecall(sum(one.recall * one.queries for one in known) / queries, queries) if known else None


class RecallSamples:
    """`capacity`: the most samples of a window, 0 for none."""

    def __init__(self, capacity: int, draw: np.random.Generator | None = None) -> None:
        self._drawn: Reservoir[Probe] = Reservoir(capacity, draw)
        # Replaced whole: metrics and status read it from other threads.
        self.recall = VersionRecall(0)

    def observe(self, call: SearchCall, _hits: ShardHits) -> None:
        """Told every search that the index answered."""
        if call.is_live and call.group is None:
            self._drawn.observe(len(call.queries), lambda place: _probe(call, place))

    def take(self) -> list[Probe]:
        """The samples of the window that ends now."""
        return self._drawn.take()

    def note(self, checked: Iterable[tuple[Probe, Found]], vectors: int = 0) -> int:
        """Remembers what was found, of the newest index version only; returns of how many searches. `vectors`: those that the
        index holds now."""
        noted = 0
        for probe, found in checked:
            if found.recall is None or found.index_version < self.recall.index_version:
                continue
            known = self.recall
            if found.index_version > known.index_version or vectors > _GROWN * known.vectors > 0:
                known = VersionRecall(found.index_version, vectors=vectors)
            plain, filtered = known.plain, known.filtered
            if probe.filter is None:
                plain = _after(plain, found.recall)
            else:
                filtered = _after(filtered, found.recall)
            self.recall = VersionRecall(known.index_version, plain, filtered, known.vectors)
            noted += 1
        return noted


def _probe(call: SearchCall, place: int) -> Probe:
    # A copy, so that a sample does not hold the message that it came in.
    return Probe(call.queries[place].copy(), call.k, call.oversampling, call.filter, call.min_score, call.ef_search)


def _after(known: LiveRecall | None, recall: float) -> LiveRecall:
    if known is None:
        return LiveRecall(recall, 1)
    queries = min(known.queries + 1, _REMEMBERED)
    return LiveRecall(known.recall + (recall - known.recall) / queries, queries)
