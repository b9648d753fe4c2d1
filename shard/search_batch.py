"""Searches a batch of queries of one kind: candidates from the index, exact rescoring, ranking, widening.

Guarantees: rescoring, ranking and the columns of a search are of one read transaction; a query that is short of hits
although the replica has more says so. Knows nothing of queues or threads.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kintsugi.limits import MAX_CANDIDATES
from kintsugi.metrics import FloatArray
from shard import search_times
from shard.checkpoint import IndexedModel, IndexVersion
from shard.exact import exact_search
from shard.reader import HitColumns
from shard.rescore import Ranked, Scored, rank, rescore
from shard.search_call import SearchCall, ShardHits
from shard.search_times import UNKNOWN, SearchTimes
from shard.source import DocumentSource


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to a batch of queries, whose hits share columns. `short`: the queries with fewer hits than there are
    documents to find."""

    ranked: list[Ranked]
    columns: HitColumns
    short: npt.NDArray[np.bool_]
    documents: int
    documents_with_vector: int
    index_version: int
    times: SearchTimes = UNKNOWN

    def hits(self, start: int, end: int) -> ShardHits:
        """The columns of some consecutive queries."""
        mine, columns = self.ranked[start:end], self.columns
        places = np.concatenate([one.places for one in mine]) if mine else np.empty(0, dtype=np.intp)
        listed = places.tolist()
        return ShardHits(
            counts=[len(one.places) for one in mine],
            ids=[columns.ids[place] for place in listed],
            scores=np.concatenate([one.scores for one in mine]) if mine else np.empty(0, dtype=np.float64),
            versions=columns.versions[places],
            attributes=[columns.attributes[place] for place in listed] if columns.attributes else [],
            texts=[columns.texts[place] for place in listed] if columns.texts else [],
            documents=self.documents,
            documents_with_vector=self.documents_with_vector,
            index_version=self.index_version,
            times=self.times,
        )


class BatchSearch:
    """Searches one replica for one model."""

    def __init__(self, source: DocumentSource, model: IndexedModel) -> None:
        self._source = source
        self._model = model

    def search(self, serving: IndexVersion, queries: FloatArray, call: SearchCall, started: float) -> Answers:
        """Asks the index once, with as many candidates as the call or the encoding want."""
        return self._search(serving, queries, call, serving.index.wanted(call.k, call.oversampling), started)

    def widen(
        self, serving: IndexVersion, call: SearchCall, started: float, is_wanted: Callable[[], bool]
    ) -> Answers | None:
        """Asks again for more and more candidates, until every query has its hits or nobody wants them. None: the
        index cannot give them."""
        count = serving.index.wanted(call.k, call.oversampling)
        while count < min(len(serving.index), MAX_CANDIDATES) and is_wanted():
            count = min(4 * count, MAX_CANDIDATES)
            search_times.WIDENED.inc()
            answers = self._search(serving, call.queries, call, count, started)
            if not answers.short.any():
                return answers
        return None

    def search_exactly(self, call: SearchCall, index_version: int, is_late: Callable[[], bool]) -> Answers:
        """Compares with all stored vectors. Raises DeadlineExceeded once it is late."""
        started = time.perf_counter()
        model = self._model
        scored = exact_search(self._source, model.number, model.metric, call.queries, call.k, is_late)
        # Rescored once more, since a document may have changed between its block and now: score and version must agree.
        searched, rows = time.perf_counter(), [one.rows for one in scored]
        answers = self._answers(rows, call.queries, call, index_version)
        times = SearchTimes(started, searched, time.perf_counter(), len(call.queries), sum(map(len, rows)))
        return replace(answers, times=times)

    def _search(
        self, serving: IndexVersion, queries: FloatArray, call: SearchCall, count: int, started: float
    ) -> Answers:
        began = time.perf_counter()
        candidates = serving.index.candidates(queries, call.k, call.oversampling, count=count)
        searched = time.perf_counter()
        answers = self._answers(candidates, queries, call, serving.number)
        times = SearchTimes(started, searched, time.perf_counter(), len(queries), sum(map(len, candidates)))
        search_times.count_batch(began, times)
        return replace(answers, times=times)

    def _answers(
        self, candidates: Sequence[npt.NDArray[np.uint64]], queries: FloatArray, call: SearchCall, index_version: int
    ) -> Answers:
        with self._source.reading() as snapshot:
            scored = rescore(snapshot, self._model.number, self._model.metric, queries, candidates, call.k)
            columns = snapshot.hits(_rows_of(scored), call.fields)
        ranked = [rank(one, columns, call.k) for one in scored]
        documents_with_vector = self._source.documents_with_vector(self._model.number)
        wanted = min(call.k, documents_with_vector)
        short = np.array([len(one.places) < wanted for one in ranked], dtype=np.bool_)
        return Answers(ranked, columns, short, self._source.documents, documents_with_vector, index_version)


def _rows_of(scored: Sequence[Scored]) -> npt.NDArray[np.uint64]:
    return np.unique(np.concatenate([one.rows for one in scored]))
