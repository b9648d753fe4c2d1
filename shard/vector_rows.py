"""The rows that have a vector of a model, for the models that somebody asked for: searches want them each time.

    writer    tells which rows a transaction gives a vector to and takes it from, before it commits
    reader    asks for the rows in its state; the first time they are read from the database, later ones are kept right

Guarantees: a reader gets the rows of exactly its state, told by the id of its transaction. Nothing waits for a commit. The
memory is bounded: one bitmap per model, and the last transactions, by which readers in an older state undo the newer ones.
Knows no database: how rows are read is given by the reader.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, NamedTuple

from pyroaring import BitMap64

# Readers end long before so many transactions are committed; one that does not reads from the database.
_REMEMBERED: Final = 256


class Change(NamedTuple):
    """The rows that got a vector and those that lost it. No row does both."""

    added: BitMap64
    removed: BitMap64


# By model.
VectorChanges = Mapping[int, Change]


@dataclass(slots=True)
class _Kept:
    """The rows after all that was told, and those that a reader got last, with the transaction that led to them."""

    newest: BitMap64
    given: BitMap64
    given_from: int


class VectorRows:
    """Transaction ids ascend; each is told at most once, and none that changes no vector need be."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, _Kept] = {}
        # What was told, the newest last, of all transactions behind `_since`.
        self._told: deque[tuple[int, VectorChanges]] = deque()
        self._since = 0

    def tell(self, transaction: int, changes: VectorChanges) -> None:
        """The transaction is about to commit. For the one writer; forget() follows when it does not."""
        with self._lock:
            self._told.append((transaction, changes))
            if len(self._told) > _REMEMBERED:
                self._since, _ = self._told.popleft()
            for model, kept in self._kept.items():
                _apply(kept.newest, changes.get(model))

    def forget(self, behind: int) -> None:
        """Nothing came of what was told behind this transaction: ids come again, with other changes."""
        with self._lock:
            while self._told and self._told[-1][0] > behind:
                _, changes = self._told.pop()
                for model, kept in self._kept.items():
                    _undo(kept.newest, changes.get(model))

    def rows(self, model: int, transaction: int, read: Callable[[], BitMap64]) -> BitMap64:
        """The rows with a vector of the model in the state of a transaction, which must not be changed. `read` reads them
        from the database in that state."""
        with self._lock:
            found = self._known(model, transaction)
        if found is not None:
            return found
        found = read()
        with self._lock:
            if transaction >= self._since and model not in self._kept:
                newest = found.copy()
                for told, changes in self._told:
                    if told > transaction:
                        _apply(newest, changes.get(model))
                self._kept[model] = _Kept(newest, found, self._last_of(model, transaction))
        return found

    def _known(self, model: int, transaction: int) -> BitMap64 | None:
        kept = self._kept.get(model)
        if kept is None or transaction < self._since:
            return None
        last = self._last_of(model, transaction)
        if last != kept.given_from:
            given = kept.newest.copy()
            for _, changes in takewhile(lambda one: one[0] > transaction, reversed(self._told)):
                _undo(given, changes.get(model))
            kept.given, kept.given_from = given, last
        return kept.given

    def _last_of(self, model: int, transaction: int) -> int:
        """The last transaction up to this one that changed vectors of the model, as far as is remembered."""
        return next((told for told in self._told_of(model) if told <= transaction), self._since)

    def _told_of(self, model: int) -> Iterator[int]:
        return (told for told, changes in reversed(self._told) if model in changes)


def _apply(rows: BitMap64, change: Change | None) -> None:
    if change is not None:
        rows |= change.added
        rows -= change.removed


def _undo(rows: BitMap64, change: Change | None) -> None:
    if change is not None:
        rows -= change.added
        rows |= change.removed
