"""What a collection must hold and answer, in plain Python and float64 numpy. Shares no code with the product but ids'
order: conditions, outcomes, versions and scores are decided again here, filters in facts, hits in ranking, all from the proto
comments.

A difference raises Difference with the history of the document.
"""

import json
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

import numpy as np

from harness.model.columns import Columns
from harness.model.facts import facts_of
from kintsugi.filters.tree import Filter
from kintsugi.ids import DocId, shard_of

_HISTORY = 12


class Difference(AssertionError):
    """The cluster and the oracle disagree."""


class Kind(StrEnum):
    PUT = "put"
    PATCH = "patch"
    DELETE = "delete"


class Condition(StrEnum):
    ALWAYS = ""
    INSERT = "insert-only"
    UPDATE = "update-only"
    VERSION = "if-version"


@dataclass(frozen=True, slots=True)
class Item:
    """One write of one document."""

    id: DocId
    kind: Kind
    condition: Condition = Condition.ALWAYS
    expected_version: int = 0
    vector: Any = None  # as stored
    attributes: str | None = None
    text: str = ""

    def __str__(self) -> str:
        parts = [self.kind, self.condition, f"v{self.expected_version}" if self.expected_version else ""]
        if self.vector is not None:
            parts.append(f"vector[0]={float(self.vector[0]):.6g}")
        if self.attributes is not None:
            parts.append(f"attributes={self.attributes}")
        return " ".join(filter(None, parts))


@dataclass(slots=True)
class Known:
    """A document as it must be. `version` is 0 until it is learnt (a LOGGED write does not tell); it is above `above`."""

    vector: Any
    attributes: str
    text: str
    version: int
    above: int


@dataclass(frozen=True, slots=True)
class Outcome:
    applied: bool
    found: bool
    version: int


class Oracle:
    def __init__(self, name: str, metric: str, shards: int, dimension: int) -> None:
        self.name = name
        self.metric = metric
        self.shards = shards
        self.documents: dict[DocId, Known] = {}
        self._history: dict[DocId, deque[str]] = defaultdict(lambda: deque(maxlen=_HISTORY))
        self._highest = [0] * shards
        self.columns = Columns(dimension)

    # --- Writes

    def refuses(self, item: Item) -> bool:
        known = self.documents.get(item.id)
        match item.condition:
            case Condition.INSERT if known is not None:
                return True
            case Condition.UPDATE if known is None:
                return True
            case Condition.VERSION if known is None or known.version != item.expected_version:
                return True
        return item.kind is Kind.PATCH and known is None

    def write(
        self, step: int, items: Sequence[Item], outcomes: Sequence[Outcome], *, told: bool, ordered: bool
    ) -> None:
        """Compares the outcomes of a request with the rules and applies it. `told`: whether versions and `found` are
        known (not for LOGGED). `ordered`: whether later items must have higher versions within a shard."""
        if len(items) != len(outcomes):
            raise Difference(f"{self.name}: {len(outcomes)} outcomes for {len(items)} items")
        before = tuple(self._highest)
        newest = list(before)
        for item, outcome in zip(items, outcomes, strict=True):
            self.note(step, item.id, f"{item} -> {outcome if told else 'logged'}")
            shard = shard_of(item.id, self.shards)
            floor = newest[shard] if ordered else before[shard]
            self._apply(item, outcome, floor, told=told)
            newest[shard] = max(newest[shard], outcome.version)
        self._highest = newest

    def _apply(self, item: Item, outcome: Outcome, floor: int, *, told: bool) -> None:
        known = self.documents.get(item.id)
        refused = self.refuses(item)
        self.same(item.id, "applied", outcome.applied, not refused)
        if refused:
            self.same(item.id, "version of a refused write", outcome.version, 0)
        elif item.kind is Kind.DELETE:
            self.same(item.id, "version of a deletion", outcome.version, 0)
            if told:
                self.same(item.id, "found", outcome.found, known is not None)
            self._remove(item.id)
        elif item.kind is Kind.PATCH:
            assert known is not None
            assert item.attributes is not None
            if known.version:
                self.same(item.id, "version after an attributes-only update", outcome.version, known.version)
            known.attributes = item.attributes
            self.columns.change_facts(item.id, facts_of(item.attributes))
            self.learn(item.id, outcome.version)
        else:
            if told and outcome.version <= floor:
                self.differ(item.id, f"version {outcome.version} of a new write is not above {floor}")
            version = outcome.version if told else 0
            self.documents[item.id] = Known(item.vector, item.attributes or "", item.text, version, floor)
            self.columns.put(item.id, item.vector, facts_of(item.attributes or ""))

    def _remove(self, doc_id: DocId) -> None:
        if self.documents.pop(doc_id, None) is not None:
            self.columns.remove(doc_id)

    def delete_all(self, step: int, ids: Sequence[DocId], what: str) -> None:
        """Takes in that these documents are gone, by a write that names none."""
        for doc_id in ids:
            self.note(step, doc_id, what)
            self._remove(doc_id)

    def learn(self, doc_id: DocId, version: int) -> None:
        known = self.documents[doc_id]
        if known.version:
            self.same(doc_id, "version", version, known.version)
        elif version <= known.above:
            self.differ(doc_id, f"version {version} is not above {known.above}")
        known.version = version

    # --- Reads

    def check_document(self, doc_id: DocId, version: int, attributes: Any, text: str | None, vector: Any) -> None:
        known = self.documents.get(doc_id)
        if known is None:
            self.differ(doc_id, f"the cluster has it in version {version}, it must not exist")
        self.learn(doc_id, version)
        if attributes is not None:
            self.same(doc_id, "attributes", attributes, json.loads(known.attributes) if known.attributes else {})
        if text is not None:
            self.same(doc_id, "text", text, known.text)
        if vector is not None and vector.tobytes() != known.vector.tobytes():
            self.differ(doc_id, f"vector {vector[:4]}..., must be {known.vector[:4]}...")

    def scores(self, query: Any) -> Any:
        """Of all documents, in the order of their ids. Equal vectors get equal scores: rows are summed alike."""
        rows, query = self.columns.vectors, np.asarray(query, np.float64)
        if self.metric == "l2":
            return -((rows - query) ** 2).sum(axis=1)
        dots = (rows * query).sum(axis=1)
        if self.metric == "dot":
            return dots
        return dots / np.sqrt((rows * rows).sum(axis=1) * (query * query).sum())

    def ids_fulfilling(self, condition: Filter) -> list[DocId]:
        columns = self.columns
        return [doc_id for doc_id, holds in zip(columns.ids, columns.fulfilling(condition), strict=True) if holds]

    # --- Differences

    def note(self, step: int, doc_id: DocId, line: str) -> None:
        self._history[doc_id].append(f"step {step}: {line}")

    def same(self, doc_id: DocId, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            self.differ(doc_id, f"{what} is {found!r}, must be {wanted!r}")

    def differ(self, doc_id: DocId, problem: str) -> NoReturn:
        history = "\n  ".join(self._history.get(doc_id, ())) or "never written"
        shard = shard_of(doc_id, self.shards)
        raise Difference(f"{self.name}, document {doc_id!r} of shard {shard}: {problem}\n  {history}")
