"""Finds the hits that make up the best groups of a query: the best few of each.

Outline: take the best hits of all; while there are too few groups among them, take the best of the documents that are in none
of the groups found so far, twice as many each time; then fill each group that lacks hits with the best of its documents.
The index of attributes tells which documents those are, and when there are no more.

Guarantees: with exact candidates, exactly the k best groups with their best hits, in one state of the documents; except that
a document that writes the attribute twice may be overlooked when one of its values is another group's. Does not know where
candidates come from, nor tells scores: who asked ranks the hits once more, in the state that it answers from.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from kintsugi.ann.vector_index import Rows
from kintsugi.errors import DeadlineExceeded
from kintsugi.filters.tree import AllOf, Equals, Exists, Filter, Not, OneOf
from kintsugi.metrics import FloatArray
from shard.answers import Asked, groups_of
from shard.attributes.lookup import Matches
from shard.grouping import Collected, Group
from shard.reader import Fields
from shard.rescore import rank, rows_of
from shard.scoring import Scorer
from shard.search_call import Grouping
from shard.source import DocumentsSnapshot

# Hits taken at first for each that is wanted: some groups have more than that.
_FIRST_PER_HIT = 2


class Finder(Protocol):
    """Where candidates come from."""

    @property
    def are_in_order(self) -> bool:
        """Whether candidates come in the order of their supposed scores, so that not all need be scored."""
        ...

    def match(self, condition: Filter) -> Matches: ...

    def find(self, queries: FloatArray, hits: int, matches: Matches | None) -> list[Rows]:
        """Candidates among which the best hits of each query are, of all documents or of the matches."""
        ...

    def reading(self) -> AbstractContextManager[DocumentsSnapshot]: ...


class GroupSearch:
    """One batch of queries, which want the `k` best groups of the documents that fulfil `condition`."""

    def __init__(
        self,
        finder: Finder,
        scorer: Scorer,
        grouping: Grouping,
        k: int,
        condition: Filter | None,
        is_late: Callable[[], bool],
    ) -> None:
        self._finder = finder
        self._scorer = scorer
        self._attribute = grouping.attribute
        self._size = grouping.size
        self._only = grouping.only
        self._k = k
        self._condition = condition
        self._is_late = is_late
        self._members: dict[Group, Matches] = {}
        self.is_short = False

    def rows(self, asked: Asked) -> list[Rows]:
        """The rows of each query's hits, in no order. `is_short` is then set if some that should exist were not found."""
        queries, matches = asked.queries, asked.matches
        each = [queries[place : place + 1] for place in range(len(queries))]
        if self._only:
            return [self._of_groups(query) for query in each]
        hits = _FIRST_PER_HIT * self._k * self._size
        documents = asked.documents if matches is None else len(matches)
        found = self._finder.find(queries, hits, matches)
        return [self._of_query(query, rows, hits, documents) for query, rows in zip(each, found, strict=True)]

    def _of_groups(self, query: FloatArray) -> Rows:
        return _as_rows([row for group in self._only for row in self._best_of(query, group)])

    def _of_query(self, query: FloatArray, first: Rows, hits: int, documents: int) -> Rows:
        collected = Collected(self._k, self._size)
        collected.add(*self._ranked(query, first, hits, documents))
        if documents > hits:
            self._find_groups(query, collected, hits)
            for group in collected.unfilled():
                if len(self._members_of(group)) > collected.count(group):
                    collected.fill(group, self._best_of(query, group))
        return _as_rows(collected.rows)

    def _find_groups(self, query: FloatArray, collected: Collected, hits: int) -> None:
        while not collected.has_all_groups:
            others: list[Filter] = [Exists(self._attribute)]
            if known := collected.values:
                others.append(Not(OneOf(self._attribute, tuple(known))))
            matches = self._match(*others)
            hits = min(hits, len(matches))
            if not hits:
                return
            collected.add(*self._search(query, hits, matches))
            if hits == len(matches):
                return
            hits *= 2

    def _best_of(self, query: FloatArray, group: Group) -> list[int]:
        """The best hits of a group. Equal values may stand in arrays, which belong to no group: hence more and more hits,
        until enough are right."""
        matches = self._members_of(group)
        hits = self._size
        while True:
            rows, groups = self._search(query, hits, matches)
            mine = [row for row, other in zip(rows, groups, strict=True) if other == group]
            if len(mine) >= self._size or hits >= len(matches):
                return mine[: self._size]
            hits *= 4

    def _members_of(self, group: Group) -> Matches:
        """The documents with a value, in an array or alone."""
        matches = self._members.get(group)
        if matches is None:
            matches = self._members[group] = self._match(Equals(self._attribute, group[1]))
        return matches

    def _match(self, *conditions: Filter) -> Matches:
        if self._is_late():
            raise DeadlineExceeded("the deadline passed during a search for groups")
        return self._finder.match(AllOf(conditions if self._condition is None else (self._condition, *conditions)))

    def _search(self, query: FloatArray, hits: int, matches: Matches) -> tuple[list[int], list[Group | None]]:
        (rows,) = self._finder.find(query, hits, matches)
        return self._ranked(query, rows, hits, len(matches))

    def _ranked(
        self, query: FloatArray, candidates: Rows, hits: int, documents: int
    ) -> tuple[list[int], list[Group | None]]:
        """The best of the candidates, and their groups."""
        with self._finder.reading() as snapshot:
            in_order = self._finder.are_in_order
            scored = self._scorer.score(snapshot, query, [candidates], hits, in_order=in_order)
            columns = snapshot.hits(rows_of(scored), Fields(attributes=True))
        (ranked,) = rank(scored, columns, hits)
        places = ranked.places
        self.is_short |= len(places) < min(hits, documents)
        groups = groups_of(columns, self._attribute)
        return columns.rows[places].tolist(), [groups[place] for place in places]


def _as_rows(rows: list[int]) -> Rows:
    return np.array(rows, dtype=np.uint64)
