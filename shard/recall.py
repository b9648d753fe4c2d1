"""Measures what part of the true best hits the searches of a replica find: searches as clients do, and exactly.

    scan all stored vectors for the truth -> wait until the index holds what was scanned -> search -> compare scores

1. Writes go on meanwhile. What the scan saw and is not there any more counts neither for nor against a search, and what
   came later can only replace hits that are worse.
2. Scores are compared, not documents, so that equal vectors may stand in for each other.
3. The scan gives way to live searches (see pace); the searches go the way of live ones, one by one.
Knows nothing of why it measures.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kintsugi.ann.vector_index import Rows
from kintsugi.errors import Unavailable
from kintsugi.filters.tree import Filter
from kintsugi.metrics import FloatArray, scores
from shard.attributes.lookup import Matches
from shard.exact import ExactScan
from shard.indexer import Indexer
from shard.pace import Pace
from shard.rescore import Scored
from shard.search_call import SearchCall
from shard.searcher import Searcher
from shard.source import DocumentSource

T = TypeVar("T")
# What probes must have in common to be scanned for together.
_Kind = tuple[int, Filter | None]

# Queries x rows that are compared at once: about 10 ms of work and 24 MiB.
_CELLS = 1_000_000
# How long the index may take to follow what was scanned.
_FOLLOW_S = 30.0
# Scores of the same vectors may differ by the order in which products are added up.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A search to be repeated: one query of d elements, and what it asked for."""

    query: FloatArray
    k: int
    oversampling: float | None = None
    filter: Filter | None = None
    min_score: float | None = None
    ef_search: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The part of the truth that an index version found; None where there was nothing to find."""

    recall: float | None
    index_version: int


class RecallCheck:
    """Measures one replica, with its searcher and the thread that is given."""

    def __init__(
        self, source: DocumentSource, indexer: Indexer, searcher: Searcher, thread: Executor, pace: Callable[[], Pace]
    ) -> None:
        self._source = source
        self._indexer = indexer
        self._model = indexer.model
        self._searcher = searcher
        self._thread = thread
        self._pace = pace

    async def measure(self, probes: Sequence[Probe]) -> list[Found]:
        """What was found, probe by probe. Raises Unavailable when the replica closes or its index does not follow, and
        what searches raise."""
        truth = await run_paced(self._thread, lambda pace: self._truth(probes, pace), self._pace())
        await self._followed(self._source.position.seq)
        answers = [await self._search(probe) for probe in probes]
        true = await run_paced(self._thread, lambda pace: self._still_true(probes, truth, pace), self._pace())
        return [Found(_recall(mine, hits), version) for mine, (hits, version) in zip(true, answers, strict=True)]

    async def _followed(self, seq: int) -> None:
        try:
            async with asyncio.timeout(_FOLLOW_S):
                await self._indexer.wait_searchable(seq)
        except TimeoutError as error:
            raise Unavailable(
                f"the index did not follow to {seq} within {_FOLLOW_S:g} s", reason="NOT_FOLLOWED"
            ) from error

    async def _search(self, probe: Probe) -> tuple[FloatArray, int]:
        """The scores of the hits, best first, and the index version that answered."""
        query = probe.query.reshape(1, -1)
        call = SearchCall(
            query,
            probe.k,
            oversampling=probe.oversampling,
            filter=probe.filter,
            ef_search=probe.ef_search,
            is_live=False,
        )
        hits = await self._searcher.search(call)
        return hits.scores, hits.index_version

    def _truth(self, probes: Sequence[Probe], pace: Pace) -> list[Scored]:
        """The best of all stored vectors for each probe, from a scan that is no snapshot."""
        groups: dict[_Kind, list[int]] = {}
        for place, probe in enumerate(probes):
            groups.setdefault((probe.k, probe.filter), []).append(place)
        scans = {
            kind: ExactScan(self._model.metric, np.stack([probes[place].query for place in places]), kind[0])
            for kind, places in groups.items()
        }
        matches = self._matches(probes)
        for rows, vectors in self._source.all_vectors(self._model.number):
            for (k, condition), scan in scans.items():
                wanted = slice(None) if condition is None else matches[condition].contains(rows)
                step = max(1, _CELLS // len(groups[k, condition]))
                for piece, of_it in _pieces(rows[wanted], vectors[wanted], step):
                    scan.feed(piece, of_it)
                    pace.step()
        found = {
            place: best
            for kind, places in groups.items()
            for place, best in zip(places, scans[kind].best(), strict=True)
        }
        return [found[place] for place in range(len(probes))]

    def _still_true(self, probes: Sequence[Probe], truth: Sequence[Scored], pace: Pace) -> list[FloatArray]:
        """The scores of what is still there as it was scanned: for each probe the best, at most k."""
        kept: list[FloatArray] = []
        matches = self._matches(probes)
        for probe, scored in zip(probes, truth, strict=True):
            pace.step()
            present, vectors = self._source.vectors(self._model.number, scored.rows)
            if probe.filter is not None:
                present = present & matches[probe.filter].contains(scored.rows)
            then, now = scored.scores[present], scores(self._model.metric, probe.query, vectors[present])
            best = np.sort(then[np.abs(now - then) <= _slack(then)])[::-1][: probe.k]
            kept.append(best if probe.min_score is None else best[best >= probe.min_score])
        return kept

    def _matches(self, probes: Sequence[Probe]) -> dict[Filter, Matches]:
        """What fulfils the filters now."""
        with self._source.reading() as snapshot:
            return {one.filter: snapshot.match(one.filter) for one in probes if one.filter is not None}


def _pieces(rows: Rows, vectors: FloatArray, length: int) -> Iterator[tuple[Rows, FloatArray]]:
    for start in range(0, len(rows), length):
        yield rows[start : start + length], vectors[start : start + length]


async def run_paced(thread: Executor, work: Callable[[Pace], T], pace: Pace) -> T:
    """Does work in a thread. When its caller is cancelled, it ends soon."""
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work, pace)
    finally:
        pace.stop()


def _recall(true: FloatArray, hits: FloatArray) -> float | None:
    """The part of the true scores that the hits reach, best first on both sides."""
    if not len(true):
        return None
    found = int(np.sum(hits >= true[-1] - _slack(true[-1])))
    return min(found, len(true)) / len(true)


def _slack(values: FloatArray) -> FloatArray:
    slack: FloatArray = _TOLERANCE * np.maximum(1.0, np.abs(values))
    return slack
