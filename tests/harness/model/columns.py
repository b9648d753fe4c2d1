"""Documents in the order of their ids, as columns, which are kept while documents come and go: sorting them anew after each
write took most of the model test's time.
"""

from bisect import bisect_left, insort
from typing import Any

import numpy as np

from harness.model.facts import Facts, fulfilling
from kintsugi.filters.tree import Filter
from kintsugi.ids import DocId, order_key


class Columns:
    """`ids` ascend. The other columns are made when they are asked for, and again after the next change."""

    def __init__(self, dimension: int) -> None:
        self.ids: list[DocId] = []
        self._vectors = np.empty((16, dimension))
        self._slots: dict[DocId, int] = {}
        self._free = list(range(16))
        self._facts: dict[DocId, Facts] = {}
        self._made: tuple[Any, list[Facts], dict[DocId, int]] | None = None
        self._fulfilling: dict[Filter, Any] = {}

    def put(self, doc_id: DocId, vector: Any, facts: Facts) -> None:
        if doc_id not in self._slots:
            insort(self.ids, doc_id, key=order_key)
            self._slots[doc_id] = self._new_slot()
        self._vectors[self._slots[doc_id]] = vector
        self.change_facts(doc_id, facts)

    def change_facts(self, doc_id: DocId, facts: Facts) -> None:
        self._facts[doc_id] = facts
        self._forget()

    def remove(self, doc_id: DocId) -> None:
        del self.ids[bisect_left(self.ids, order_key(doc_id), key=order_key)]
        self._free.append(self._slots.pop(doc_id))
        del self._facts[doc_id]
        self._forget()

    @property
    def vectors(self) -> Any:
        """n x d float64."""
        return self._columns()[0]

    @property
    def facts(self) -> list[Facts]:
        return self._columns()[1]

    @property
    def place_of(self) -> dict[DocId, int]:
        return self._columns()[2]

    def fulfilling(self, condition: Filter | None) -> Any:
        """For which documents the filter holds."""
        if condition is None:
            return np.ones(len(self.ids), np.bool_)
        if condition not in self._fulfilling:
            self._fulfilling[condition] = fulfilling(condition, self.facts)
        return self._fulfilling[condition]

    def _columns(self) -> tuple[Any, list[Facts], dict[DocId, int]]:
        if self._made is None:
            ids = self.ids
            slots = [self._slots[doc_id] for doc_id in ids]
            places = {doc_id: place for place, doc_id in enumerate(ids)}
            self._made = self._vectors[slots], [self._facts[doc_id] for doc_id in ids], places
        return self._made

    def _forget(self) -> None:
        self._made = None
        self._fulfilling = {}

    def _new_slot(self) -> int:
        if not self._free:
            size = len(self._vectors)
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
            self._free = list(range(size, 2 * size))
        return self._free.pop()
