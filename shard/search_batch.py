"""Searches a batch of queries of one kind: filter, candidates, exact rescoring, ranking, groups.

Outline: within one read transaction, find the rows that fulfil the filter, candidates among them, or candidates of groups;
score the candidates with their stored vectors; read the hits' columns; rank, group, cut. An exact search compares with stored
vectors first, block by block, and takes a transaction for the rest.

Guarantees: what is told of a hit (score, version, attributes, group, that it fulfils the filter) is of one state of the
documents; a query that is short of hits although there are more says so. Knows nothing of queues or threads.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.tree import Filter
from kintsugi.limits import MAX_CANDIDATES
from kintsugi.metrics import FloatArray
from shard import search_times
from shard.answers import Answers, Asked, answer
from shard.attributes.lookup import Matches
from shard.candidates import IndexCandidates
from shard.checkpoint import IndexedModel, IndexVersion
from shard.cross_batch import CostsOf, CrossBatch, building
from shard.cross_candidates import Parts
from shard.crossing import Crossings, no_crossing
from shard.exact import exact_among, exact_search
from shard.group_search import Finder, GroupSearch
from shard.scoring import PlainScorer
from shard.search_call import SearchCall
from shard.search_times import SearchTimes, StageClock
from shard.source import DocumentSource, DocumentsSnapshot
from shard.steady import Steady, SteadySnapshot

IsLate = Callable[[], bool]

# An exact search is repeated when hits were lost to writes meanwhile; but not for as long as there are writes.
_EXACT_ATTEMPTS = 3
# Hits of an exact search beyond those that are wanted, in case some of them change before they are read once more.
_SPARE = 16


class BatchSearch:
    """Searches one replica for one model. `crossings` tells whether, and how, documents of another model are searched along,
    `steady` which state the index holds exactly, None for unknown."""

    def __init__(
        self,
        source: DocumentSource,
        model: IndexedModel,
        crossings: Crossings = no_crossing,
        steady: Callable[[], Steady | None] = lambda: None,
    ) -> None:
        self._source = source
        self._steady = steady
        self._model = model
        self._crossings = crossings
        self._cross: CrossBatch | None = None
        self._plain = PlainScorer(model)
        self._costs = CostsOf()

    def search(
        self, serving: IndexVersion | None, calls: Sequence[SearchCall], started: float, is_late: IsLate
    ) -> Answers:
        """Asks the index for the queries of calls of one kind. Raises DeadlineExceeded when a search for groups is late,
        Unavailable while there is no index."""
        clock, call, cross = StageClock(), calls[0], self._crossed(calls[0])
        # Before candidates are found: they must be of the same state.
        steady = self._steady() if cross is None else None
        queries = joined(calls) if cross is None else cross.queries(calls)
        with self._source.reading() as snapshot:
            parts = None if cross is None else cross.parts(snapshot)
            finder = self._finder(snapshot, serving, call, clock, cross, parts)
            matches = None if call.filter is None else finder.match(call.filter)
            asked = self._asked(queries, call, matches, cross, parts, in_order=finder.are_in_order)
            rows, is_short = self._find(finder, asked, is_late)
            searched, found = clock.last, sum(map(len, rows))
            answers = answer(self._with_file(snapshot, steady, serving), asked, rows, clock)
        clock.tell(len(queries), found)
        times = SearchTimes(started, searched, clock.last, len(queries), found)
        answers = replace(answers, short=answers.short | is_short)
        return self._told(_counted(answers, cross, parts), serving.number if serving is not None else 0, times)

    def _with_file(
        self, snapshot: DocumentsSnapshot, steady: Steady | None, serving: IndexVersion | None
    ) -> DocumentsSnapshot:
        """The snapshot, with the vectors of candidates from the index's file where that is known to be right."""
        if steady is None or serving is None or steady.index is not serving.index:
            return snapshot
        vectors, number = steady.index.vectors, self._model.number
        # An index may hold more: vectors that were projected, of documents that have none of the model.
        is_exact = len(steady.index) == self._source.documents_with_vector(number)
        if vectors is None or not is_exact or snapshot.seq != steady.seq:
            return snapshot
        return SteadySnapshot(snapshot, number, vectors, lambda: self._steady() is steady)

    def widen(self, serving: IndexVersion | None, call: SearchCall, started: float, is_late: IsLate) -> Answers | None:
        """Asks again for more and more candidates, until every query has its hits or it is late. None: the index cannot
        give them. That it cannot is known at once with a filter, or with groups."""
        if serving is None or call.filter is not None or call.group is not None:
            return None
        index, enough = serving.index, min(len(serving.index), MAX_CANDIDATES)
        oversampling = call.oversampling or index.oversampling
        while index.wanted(call.k, oversampling) < enough and not is_late():
            oversampling *= 4
            search_times.WIDENED.inc()
            wider = replace(call, oversampling=oversampling)
            answers = self.search(serving, [wider], started, is_late)
            if not answers.short.any():
                return answers
        return None

    def search_exactly(self, call: SearchCall, index_version: int, is_late: IsLate) -> Answers:
        """Compares with all stored vectors. Raises DeadlineExceeded once it is late."""
        started, cross = time.perf_counter(), self._crossed(call)
        queries = call.queries if cross is None else cross.queries([call])
        for _ in range(_EXACT_ATTEMPTS):
            seq = self._source.position.seq
            finder = self._exact_finder(cross, is_late)
            matches = None if call.filter is None else finder.match(call.filter)
            with self._source.reading() as snapshot:
                parts = None if cross is None else cross.parts(snapshot)
            rows, _ = self._find(finder, self._asked(queries, call, matches, cross, parts), is_late)
            searched = time.perf_counter()
            with self._source.reading() as snapshot:
                parts = None if cross is None else cross.parts(snapshot)
                # Matched and scored once more: a document may have changed between its block and now.
                if call.filter is not None:
                    matches = snapshot.match(call.filter)
                    left = [some[matches.contains(some)] for some in rows]
                else:
                    left = rows
                asked = self._asked(queries, call, matches, cross, parts)
                answers = answer(snapshot, asked, left, StageClock())
            # There are no spare hits of groups.
            is_lost = call.group is not None and sum(map(len, left)) < sum(map(len, rows))
            if not (is_lost or answers.short.any()) or self._source.position.seq == seq:
                break
        times = SearchTimes(started, searched, time.perf_counter(), len(call.queries), sum(map(len, rows)))
        return self._told(_counted(answers, cross, parts), index_version, times)

    def _crossed(self, call: SearchCall) -> CrossBatch | None:
        """None: only the model's own vectors are searched."""
        crossing = self._crossings() if call.is_live else None
        if crossing is None:
            return None
        cross = self._cross
        if cross is None or cross.crossing is not crossing:
            cross = self._cross = CrossBatch(crossing)
        return cross

    def _told(self, answers: Answers, index_version: int, times: SearchTimes) -> Answers:
        return replace(answers, documents=self._source.documents, index_version=index_version, times=times)

    def _finder(
        self,
        snapshot: DocumentsSnapshot,
        serving: IndexVersion | None,
        call: SearchCall,
        clock: StageClock,
        cross: CrossBatch | None,
        parts: Parts | None,
    ) -> Finder:
        own = None
        if serving is not None:
            own = IndexCandidates(snapshot, self._model, serving, call, self._costs.of(serving), clock)
        if cross is not None and parts is not None:
            return cross.finder(snapshot, parts, own, call, clock)
        if own is None:
            raise building()
        return own

    def _exact_finder(self, cross: CrossBatch | None, is_late: IsLate) -> Finder:
        if cross is None:
            return _ExactFinder(self._source, self._model, is_late)
        return cross.exact_finder(lambda model: _ExactFinder(self._source, model, is_late))

    def _find(self, finder: Finder, asked: Asked, is_late: IsLate) -> tuple[list[Rows], bool]:
        """The rows to score for each query, and whether some that should exist were not found."""
        call = asked.call
        if call.group is None:
            return finder.find(asked.queries, call.k, asked.matches), False
        search = GroupSearch(finder, asked.scorer, call.group, call.k, call.filter, is_late)
        return search.rows(asked), search.is_short

    def _asked(
        self,
        queries: FloatArray,
        call: SearchCall,
        matches: Matches | None,
        cross: CrossBatch | None,
        parts: Parts | None,
        *,
        in_order: bool = False,
    ) -> Asked:
        if cross is None or parts is None:
            documents = self._source.documents_with_vector(self._model.number)
            return Asked(queries, call, matches, documents, in_order, self._plain)
        return Asked(queries, call, matches, len(parts), in_order, cross.scorer())


def _counted(answers: Answers, cross: CrossBatch | None, parts: Parts | None) -> Answers:
    """With the documents that have a vector of either model."""
    if cross is None or parts is None:
        return answers
    return replace(
        answers,
        documents_with_vector=len(parts.native),
        documents_with_other=len(parts.other),
        other_model=cross.crossing.other_model.name,
    )


def joined(calls: Sequence[SearchCall]) -> FloatArray:
    """The queries of all calls, one after the other."""
    return calls[0].queries if len(calls) == 1 else np.concatenate([call.queries for call in calls])


class _ExactFinder:
    """Compares with stored vectors, block by block."""

    are_in_order = False

    def __init__(self, source: DocumentSource, model: IndexedModel, is_late: IsLate) -> None:
        self._source = source
        self._model = model
        self._is_late = is_late

    def match(self, condition: Filter) -> Matches:
        with self._source.reading() as snapshot:
            return snapshot.match(condition)

    def reading(self) -> AbstractContextManager[DocumentsSnapshot]:
        return self._source.reading()

    def find(self, queries: FloatArray, hits: int, matches: Matches | None) -> list[Rows]:
        source, number, metric = self._source, self._model.number, self._model.metric
        hits += max(_SPARE, hits // 4)
        if matches is None:
            scored = exact_search(source, number, metric, queries, hits, self._is_late)
        else:
            scored = exact_among(source, number, metric, queries, hits, matches.rows(), self._is_late)
        return [one.rows for one in scored]
