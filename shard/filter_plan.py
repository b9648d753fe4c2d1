"""Chooses how to find the nearest of the rows that fulfil a filter: ask the graph and mask what it gives, or compare all of
those rows. Pure.

The graph is asked for so many candidates that enough of them should fulfil the filter, were the filter and the query
independent. When they are not, and fewer do, the fraction that was seen takes the place of the guess: the graph is asked for
more, or the rows are scanned, whichever is then expected to be cheaper. What each takes is a model of costs measured on one
machine, corrected by running averages of what they take on this one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import ceil

from kintsugi.limits import MAX_CANDIDATES

# Measured with int8 codes of 384 dimensions, 100k vectors, one core. A graph search has a fixed cost, and one for each
# candidate; what is below the graph's own breadth costs as much as that. A scan gathers each row's code once for all
# queries, then compares. Reading a stored vector is mostly a cache miss in the database.
_GRAPH_START_S, _CANDIDATE_S = 150e-6, 1.5e-6
_SCAN_START_S, _GATHER_S, _COMPARE_S = 30e-6, 35e-9, 20e-9
_STORED_START_S, _READ_S, _EXACT_S = 50e-6, 1.4e-6, 0.3e-6
_MEASURED_DIMENSION = 384
# Below so many dimensions a row costs its cache misses, however short it is.
_SMALLEST_PART = 0.25

# Asked for beyond what independence would take: half of all queries see less than their share.
_HEADROOM = 1.3
# The part of the wanted candidates that will do. The rest is slack: with i8 and 3 candidates per hit wanted, 2 are enough
# for a recall above 0.99.
_SUFFICIENT = 0.6
# The graph must be expected to be this much cheaper: when it disappoints, the scan is still to come.
_BET = 1.5
_FORGETTING = 0.2


class Way(Enum):
    GRAPH = "graph"
    # By scan codes, or, without any, by the stored vectors.
    SCAN = "scan"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next. `count`: candidates to ask the graph for."""

    way: Way
    count: int = 0


@dataclass(frozen=True, slots=True)
class Filtered:
    """What there is to search. `matches`: rows that fulfil the filter; `vectors`: those in the index; `wanted`: candidates
    that fulfil it which the encoding asks for; `breadth`: candidates that the graph looks at in any case; `density`: how many
    times their share of the vectors those rows are of the candidates, when that is known."""

    matches: int
    vectors: int
    queries: int
    wanted: int
    breadth: int
    dimension: int
    has_codes: bool
    density: float = 1.0

    @property
    def selectivity(self) -> float:
        """The part of the candidates that is expected to fulfil the filter."""
        return min(1.0, self.density * self.matches / max(1, self.vectors))

    @property
    def sufficient(self) -> int:
        """Candidates that fulfil the filter without which a query is asked again."""
        return min(ceil(self.wanted * _SUFFICIENT), self.matches)


@dataclass(slots=True)
class Costs:
    """How much slower than the model this machine is, as running averages. Of one index; used by one thread."""

    graph: float = 1.0
    scan: float = 1.0

    def graph_s(self, searched: Filtered, count: int) -> float:
        """Seconds for a graph search of all the queries."""
        return self.graph * _graph_model(searched, count)

    def scan_s(self, searched: Filtered) -> float:
        """Seconds for comparing all the queries with all the matches."""
        return self.scan * _scan_model(searched)

    def learn_graph(self, searched: Filtered, count: int, seconds: float) -> None:
        self.graph += _FORGETTING * (_within_reason(seconds / _graph_model(searched, count)) - self.graph)

    def learn_scan(self, searched: Filtered, seconds: float) -> None:
        self.scan += _FORGETTING * (_within_reason(seconds / _scan_model(searched)) - self.scan)


def first_step(searched: Filtered, costs: Costs) -> Step:
    """How to begin."""
    fair = ceil(_HEADROOM * searched.wanted / max(searched.selectivity, 1e-9))
    return _cheaper(searched, costs, needed=fair, count=max(fair, searched.breadth), bet=_BET)


def next_step(searched: Filtered, costs: Costs, count: int, seen: Sequence[int], fulfilling: Sequence[int]) -> Step:
    """How to go on with the queries that `count` candidates were too few for: of so many seen, so many fulfilled the
    filter. `searched.queries` are those queries."""
    fraction = (sum(fulfilling) + 0.5) / max(1, sum(seen))
    needed = max(2 * count, ceil(_HEADROOM * searched.wanted / fraction))
    if sum(seen) < count * len(seen):
        # The graph has no more to give.
        return Step(Way.SCAN)
    return _cheaper(searched, costs, needed=needed, count=min(needed, 4 * count), bet=1.0)


def _cheaper(searched: Filtered, costs: Costs, *, needed: int, count: int, bet: float) -> Step:
    if needed > min(MAX_CANDIDATES, searched.vectors):
        return Step(Way.SCAN)
    if bet * costs.graph_s(searched, needed) < costs.scan_s(searched):
        return Step(Way.GRAPH, min(count, MAX_CANDIDATES))
    return Step(Way.SCAN)


def _graph_model(searched: Filtered, count: int) -> float:
    looked_at = max(count, searched.breadth)
    return searched.queries * (_GRAPH_START_S + looked_at * _CANDIDATE_S * _part(searched.dimension))


def _scan_model(searched: Filtered) -> float:
    if searched.has_codes:
        of_a_row = (_GATHER_S + searched.queries * _COMPARE_S) * _part(searched.dimension)
        return _SCAN_START_S + searched.matches * of_a_row
    return _STORED_START_S + searched.matches * (_READ_S + searched.queries * _EXACT_S * _part(searched.dimension))


def _part(dimension: int) -> float:
    return max(dimension / _MEASURED_DIMENSION, _SMALLEST_PART)


def _within_reason(ratio: float) -> float:
    """A thread that had to wait for its core says nothing about the machine's speed."""
    return min(max(ratio, 0.1), 10.0)
