"""Which hits a search must have: the best of the documents that fulfil its filter, from its least score on, of a page or by
groups. Judged against an oracle, exactly where it promises that, else by recall.

Scores are compared within rounding. A hit may stand where another is expected only when both score alike and have different
vectors: equal vectors score exactly alike everywhere, and their ids decide.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from harness.model.facts import Fact, fact_of
from harness.model.oracle import Difference, Oracle
from kintsugi.filters.tree import Filter
from kintsugi.ids import DocId, order_key

SCORE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Question:
    """What a search asks for, beside its vector."""

    k: int
    exact: bool
    filter: Filter | None = None
    min_score: float | None = None
    offset: int = 0
    group_by: str = ""
    group_size: int = 1

    def options(self) -> dict[str, Any]:
        """As the client takes them."""
        found: dict[str, Any] = {"k": self.k, "exact": self.exact, "filter": self.filter}
        if self.min_score is not None:
            found["min_score"] = self.min_score
        if self.offset:
            found["offset"] = self.offset
        if self.group_by:
            found |= {"group_by": self.group_by, "group_size": self.group_size}
        return found


def close(one: float, other: float) -> bool:
    return abs(one - other) <= SCORE_TOLERANCE * max(1.0, abs(one), abs(other))


def between_scores(oracle: Oracle, query: Any, condition: Filter | None, place: float) -> float:
    """A least score that no rounding moves across a document: `place` of the way down the ranking."""
    scores = np.sort(oracle.scores(query)[oracle.columns.fulfilling(condition)])[::-1]
    gaps = np.flatnonzero(scores[:-1] - scores[1:] > 100 * SCORE_TOLERANCE * np.maximum(1.0, np.abs(scores[1:])))
    if not len(gaps):
        return float(scores[-1]) - 1.0 if len(scores) else 0.0
    gap = gaps[int(place * len(gaps))]
    return float((scores[gap] + scores[gap + 1]) / 2)


class Judge:
    """Of one query. `recall` is the part of the expected hits that were found, once `check` has passed."""

    def __init__(self, oracle: Oracle, query: Any, question: Question) -> None:
        self._oracle = oracle
        self._question = question
        self._ids = oracle.columns.ids
        scores = oracle.scores(query)
        self._allowed = oracle.columns.fulfilling(question.filter)
        fulfilling = np.flatnonzero(self._allowed)
        order = fulfilling[np.argsort(-scores[fulfilling], kind="stable")]
        if question.min_score is not None:
            order = order[scores[order] >= question.min_score]
        self._scores = scores
        self._order = order.tolist()
        self._place_of = oracle.columns.place_of

    def check(self, hits: Sequence[Any]) -> float:
        """Raises Difference, or returns the recall: 1 in exact mode."""
        if len({hit.id for hit in hits}) != len(hits):
            self._fail(f"hits twice: {[hit.id for hit in hits][:20]}")
        for hit in hits:
            self._check_hit(hit)
        return self._check_groups(hits) if self._question.group_by else self._check_page(hits)

    def _check_hit(self, hit: Any) -> None:
        place = self._place_of.get(hit.id)
        if place is None:
            self._differ(hit.id, f"found in version {hit.version}, it must not exist")
        if not self._allowed[place]:
            self._differ(hit.id, f"found, but does not fulfil the filter: {self._oracle.documents[hit.id].attributes}")
        self._oracle.learn(hit.id, hit.version)
        if not close(hit.score, self._scores[place]):
            self._differ(hit.id, f"score {hit.score!r}, must be {self._scores[place]!r}")
        if self._question.min_score is not None and hit.score < self._question.min_score:
            self._differ(hit.id, f"score {hit.score!r} is below the least")

    # --- Pages

    def _check_page(self, hits: Sequence[Any]) -> float:
        question = self._question
        expected = self._order[question.offset : question.offset + question.k]
        self._check_order(hits)
        self._check_count(len(hits), len(expected))
        if question.exact:
            self._check_identical(hits, expected)
        return self._recall(hits, expected)

    def _check_order(self, hits: Sequence[Any]) -> None:
        for one, other in itertools.pairwise(hits):
            if one.score < other.score:
                self._differ(other.id, f"score {other.score!r} stands behind {one.score!r} of {one.id!r}")
            if one.score == other.score and order_key(one.id) > order_key(other.id):
                self._differ(other.id, f"stands behind {one.id!r} of the same score {one.score!r}")

    def _check_count(self, found: int, wanted: int) -> None:
        """Only a least score may cost an approximate search hits: the index knows no scores."""
        may_lack = not self._question.exact and self._question.min_score is not None
        if found > wanted or (found < wanted and not may_lack):
            self._fail(f"{found} hits, must be {wanted}: {len(self._order)} documents could be found")

    def _check_identical(self, hits: Sequence[Any], expected: Sequence[int]) -> None:
        documents = self._oracle.documents
        for hit, place in zip(hits, expected, strict=True):
            wanted = self._ids[place]
            if hit.id == wanted:
                continue
            alike = documents[hit.id].vector.tobytes() == documents[wanted].vector.tobytes()
            if alike or not close(hit.score, self._scores[place]):
                self._differ(
                    hit.id, f"score {hit.score!r} stands where {wanted!r} with {self._scores[place]!r} must be"
                )

    def _recall(self, hits: Sequence[Any], expected: Sequence[int]) -> float:
        if not expected:
            return 1.0
        least = self._scores[expected[-1]]
        return min(1.0, sum(hit.score >= least or close(hit.score, least) for hit in hits) / len(expected))

    # --- Groups

    def _check_groups(self, hits: Sequence[Any]) -> float:
        question = self._question
        members = self._members()
        best = dict(itertools.islice(members.items(), question.k))
        expected = [place for places in best.values() for place in places[: question.group_size]]
        found = self._found_groups(hits)
        self._check_count(len(found), len(best))
        for group, mine in found.items():
            self._check_order(mine)
            self._check_count(len(mine), min(len(members[group]), question.group_size))
        self._check_order([mine[0] for mine in found.values()])
        if question.exact:
            self._check_identical(hits, expected)
        return self._recall_of_groups(found, best, len(expected))

    def _members(self) -> dict[Fact, list[int]]:
        """The places of each group's documents, best first; groups from the best."""
        facts, members = self._oracle.columns.facts, {}
        for place in self._order:
            group = facts[place].groups.get(self._question.group_by)
            if group is not None:
                members.setdefault(group, []).append(place)
        return members

    def _found_groups(self, hits: Sequence[Any]) -> dict[Fact, list[Any]]:
        found: dict[Fact, list[Any]] = {}
        facts = self._oracle.columns.facts
        for (kind, value), run in itertools.groupby(hits, key=lambda hit: fact_of(hit.group)):
            group = kind, value
            if group in found:
                self._fail(f"the hits of group {value!r} do not stand together")
            found[group] = list(run)
            for hit in found[group]:
                own = facts[self._place_of[hit.id]].groups.get(self._question.group_by)
                if own != group:
                    self._differ(hit.id, f"found in group {value!r}, is in {own}")
        return found

    def _recall_of_groups(self, found: dict[Fact, list[Any]], best: dict[Fact, list[int]], expected: int) -> float:
        if not expected:
            return 1.0
        size = self._question.group_size
        right = sum(
            min(len(places[:size]), self._recall(found.get(group, []), places[:size]) * len(places[:size]))
            for group, places in best.items()
        )
        return right / expected

    # --- Differences

    def _differ(self, doc_id: DocId, problem: str) -> NoReturn:
        self._oracle.differ(doc_id, f"{problem}\n  {self._question}")

    def _fail(self, problem: str) -> NoReturn:
        raise Difference(f"{self._oracle.name}: {problem}\n  {self._question}")
