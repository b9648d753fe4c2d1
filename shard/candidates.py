"""Finds rows that are probably the nearest to a query: in the whole index, or among those that fulfil a filter.

Outline with a filter: the plan says whether to ask the graph or to scan; the graph's answer is masked; queries that got too
few candidates go on as the plan says, until they have enough, or are scanned along with the others that have not.

Guarantees: as many candidates as the encoding wants for the hits, or all rows of the index that fulfil the filter. Serves
one micro-batch, on one thread. Does not know scores: candidates are for exact rescoring.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import ceil

import numpy as np
import numpy.typing as npt

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.tree import Filter
from kintsugi.limits import MAX_CANDIDATES
from kintsugi.metrics import FloatArray
from shard.attributes.lookup import Matches
from shard.checkpoint import IndexedModel, IndexVersion
from shard.exact import exact_among
from shard.filter_plan import Costs, Filtered, Way, first_step, next_step
from shard.search_call import SearchCall
from shard.search_times import WIDENED, Stage, StageClock
from shard.source import DocumentsSnapshot

# Candidates of a scan. Far from a query, where it is compared with the rows of a filter that is at odds with it, scores lie
# so close together that codes tell little about their order.
_SCANNED_PER_HIT = 100.0
_NO_ROWS: Rows = np.empty(0, dtype=np.uint64)


class IndexCandidates:
    """Asks one index version, about one state of the documents, for searches like `call`. `costs` are the version's, and are corrected."""

    def __init__(
        self,
        snapshot: DocumentsSnapshot,
        model: IndexedModel,
        serving: IndexVersion,
        call: SearchCall,
        costs: Costs,
        clock: StageClock,
    ) -> None:
        self._snapshot = snapshot
        self._model = model
        self._index = serving.index
        self._oversampling = call.oversampling
        self._ef_search = call.ef_search
        self._costs = costs
        self._clock = clock
        self._breadth = call.ef_search or self._index.breadth.value

    @property
    def are_in_order(self) -> bool:
        """Whether candidates come in the order of their supposed scores, and it is left open how many are scored. Who says
        how many candidates there shall be per hit, wants them all to be scored."""
        return self._oversampling is None

    def match(self, condition: Filter) -> Matches:
        """The rows that fulfil a filter."""
        matches = self._snapshot.match(condition)
        self._clock.lap(Stage.FILTER)
        return matches

    def reading(self) -> AbstractContextManager[DocumentsSnapshot]:
        return nullcontext(self._snapshot)

    def usual(self, hits: int) -> int:
        """How many candidates there are for so many hits, of all rows."""
        count = self._index.wanted(hits, self._oversampling)
        # The graph looks at as many anyway; how many of them are scored is found out.
        return max(count, self._breadth) if self.are_in_order else count

    def enough(self, hits: int, matches: int) -> int:
        """Of how many candidates it is not asked for more, when so many rows may be candidates."""
        return _enough(hits, self._searched(1, hits, matches))

    def broadly(self, queries: FloatArray, hits: int, count: int) -> list[Rows]:
        """As many candidates as usual for so many hits, of all rows, or more."""
        count = max(self.usual(hits), min(count, MAX_CANDIDATES))
        return self._graph(queries, hits, count, self._searched(len(queries), hits, len(self._index)), None)

    def find(self, queries: FloatArray, hits: int, matches: Matches | None, *, density: float = 1.0) -> list[Rows]:
        """Candidates for so many hits of each query, of all rows or of the matches. `density`: how many times their share of
        all rows the matches are of the candidates, as far as is known."""
        if matches is None:
            return self.broadly(queries, hits, 0)
        found = [_NO_ROWS for _ in queries]
        if not len(matches):
            return found
        unanswered = self._ask_graph(queries, hits, matches, found, density)
        if unanswered:
            scanned = self._scan(queries[unanswered], hits, matches)
            for place, rows in zip(unanswered, scanned, strict=True):
                found[place] = rows
        return found

    def _ask_graph(
        self, queries: FloatArray, hits: int, matches: Matches, found: list[Rows], density: float
    ) -> list[int]:
        """Puts what the graph gives into `found`, and returns the places of the queries that are to be scanned for."""
        places = list(range(len(queries)))
        searched = replace(self._searched(len(queries), hits, len(matches)), density=density)
        step = first_step(searched, self._costs)
        while step.way is Way.GRAPH:
            masked = _Masked(matches)
            self._clock.lap(Stage.FILTER)
            given = self._graph(queries[places], hits, step.count, searched, masked)
            for place, rows in zip(places, given, strict=True):
                found[place] = rows if self.are_in_order else rows[: searched.wanted]
            enough = _enough(hits, searched)
            short = [at for at, count in enumerate(masked.fulfilling) if count < enough]
            places = [places[at] for at in short]
            if not places:
                return places
            WIDENED.inc()
            searched = replace(searched, queries=len(places))
            seen, fulfilling = ([counts[at] for at in short] for counts in (masked.seen, masked.fulfilling))
            step = next_step(searched, self._costs, step.count, seen, fulfilling)
        return places

    def _graph(
        self, queries: FloatArray, hits: int, count: int, searched: Filtered, allowed: "_Masked | None"
    ) -> list[Rows]:
        worked = time.thread_time()
        found = self._index.candidates(
            queries, hits, self._oversampling, count=count, allowed=allowed, breadth=self._ef_search
        )
        self._costs.learn_graph(searched, count, time.thread_time() - worked)
        self._clock.lap(Stage.INDEX)
        return found

    def _scan(self, queries: FloatArray, hits: int, matches: Matches) -> list[Rows]:
        """Compares with all the matches: by their codes, or by the stored vectors where there are no codes."""
        searched = self._searched(len(queries), hits, len(matches))
        per_hit = _SCANNED_PER_HIT if self._oversampling is None else self._oversampling
        count = max(hits, min(ceil(hits * per_hit), MAX_CANDIDATES))
        worked = time.thread_time()
        rows = matches.rows()
        found = self._index.scan_rows(queries, rows, count)
        if found is None:
            model = self._model
            best = exact_among(self._snapshot, model.number, model.metric, queries, hits, rows)
            found = [one.rows for one in best]
        self._costs.learn_scan(searched, time.thread_time() - worked)
        self._clock.lap(Stage.SCAN)
        return found

    def _searched(self, queries: int, hits: int, matches: int) -> Filtered:
        index = self._index
        return Filtered(
            matches=matches,
            vectors=len(index),
            queries=queries,
            wanted=min(index.wanted(hits, self._oversampling), matches),
            breadth=self._breadth,
            dimension=self._model.dimension,
            has_codes=index.scan is not None,
        )


def _enough(hits: int, searched: Filtered) -> int:
    """Whoever wants hardly more candidates than hits cannot do with a part of them."""
    return max(searched.sufficient, min(hits, searched.matches))


class _Masked:
    """Leaves the rows that fulfil the filter, and counts what it saw of each query."""

    def __init__(self, matches: Matches) -> None:
        self._matches = matches
        self.seen: list[int] = []
        self.fulfilling: list[int] = []

    def __call__(self, rows: Rows) -> npt.NDArray[np.bool_]:
        mask = self._matches.contains(rows)
        self.seen.append(len(rows))
        self.fulfilling.append(int(np.count_nonzero(mask)))
        return mask
