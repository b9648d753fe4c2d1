"""The number columns in use, each in the last two states of the database, since readers may be in either.

    writer    tells the changes of a batch before it commits: who then begins to read finds the column of that state
    reader    asks for the column of the state it reads in; what is not there is read from the database, and kept

Guarantees: a reader gets the column of exactly its state. Nothing waits for a commit. The memory is bounded: the columns
used least recently go first. Knows no database: how a column is read is given by the reader.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shard.attributes.column import Column

# 16 bytes per document and attribute: a million documents have room for 16 attributes that filters use.
MAX_COLUMN_BYTES: Final = 256 * 2**20

# What changed, by attribute number: by row, the numbers from now on.
NumberChanges = Mapping[int, Mapping[int, tuple[float, ...]]]
_States = tuple[tuple[int, Column], ...]


@dataclass(slots=True)
class _Loading:
    """A column that a reader is about to keep, and the batches told since the state it is read in."""

    since: list[tuple[int, NumberChanges]] = field(default_factory=list)


class NumberColumns:
    """`seq`: the state of the database at the beginning."""

    def __init__(self, seq: int, max_bytes: int = MAX_COLUMN_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # The last used one last. States ascending, at most two; a column holds until the next state.
        self._columns: dict[int, _States] = {}
        self._loading: dict[int, _Loading] = {}
        self._told = seq
        self._last: tuple[int, NumberChanges] = (seq, {})
        self._before_last = seq

    @property
    def bytes(self) -> int:
        """The memory of the columns. What two states share is counted once."""
        with self._lock:
            return sum(states[-1][1].bytes for states in self._columns.values())

    def tell(self, seq: int, changes: NumberChanges) -> None:
        """The batch that leads to `seq` is about to commit. For the one writer; forget() follows when it does not."""
        with self._lock:
            self._before_last, self._told = self._told, seq
            self._last = (seq, changes)
            for loading in self._loading.values():
                loading.since.append((seq, changes))
            held = {attribute: self._columns[attribute] for attribute in changes if attribute in self._columns}
        # Sorting takes its time; readers go on meanwhile.
        after = {attribute: states[-1][1].changed_by(changes[attribute]) for attribute, states in held.items()}
        with self._lock:
            for attribute, states in held.items():
                if self._columns.get(attribute) is states:
                    self._columns[attribute] = (states[-1], (seq, after[attribute]))
            self._make_room()

    def forget(self, seq: int) -> None:
        """Nothing came of the batch that was told, if one was: the database stays at `seq`, and all is read again."""
        with self._lock:
            if seq == self._told:
                return
            self._columns.clear()
            self._loading.clear()
            self._before_last = self._told = seq
            self._last = (seq, {})

    def column(self, attribute: int, seq: int, read: Callable[[], Column]) -> Column:
        """The column of an attribute in the state `seq`. `read` reads it from the database in that state."""
        with self._lock:
            states = self._columns.get(attribute)
            if states is not None:
                self._columns[attribute] = self._columns.pop(attribute)
                for since, column in reversed(states):
                    if since <= seq:
                        return column
            loading = self._begin_loading(attribute, seq) if states is None else None
        try:
            column = read()
        except BaseException:
            self._give_up(attribute, loading)
            raise
        if loading is not None:
            self._keep(attribute, loading, (seq, column))
        return column

    def _begin_loading(self, attribute: int, seq: int) -> _Loading | None:
        """None when the column cannot be kept: another reader is at it, or `seq` is too long ago to catch up from."""
        if attribute in self._loading or seq not in {self._told, self._before_last}:
            return None
        loading = _Loading([self._last] if seq != self._told else [])
        self._loading[attribute] = loading
        return loading

    def _give_up(self, attribute: int, loading: _Loading | None) -> None:
        with self._lock:
            if loading is not None and self._loading.get(attribute) is loading:
                del self._loading[attribute]

    def _keep(self, attribute: int, loading: _Loading, state: tuple[int, Column]) -> None:
        with self._lock:
            if self._loading.get(attribute) is not loading:
                return
            del self._loading[attribute]
            states: _States = (state,)
            for seq, changes in loading.since:
                if attribute in changes:
                    states = (states[-1], (seq, states[-1][1].changed_by(changes[attribute])))
            self._columns[attribute] = states
            self._make_room()

    def _make_room(self) -> None:
        used = sum(states[-1][1].bytes for states in self._columns.values())
        # The one used last stays, however large it is: otherwise every filter would read it again.
        while used > self._max_bytes and len(self._columns) > 1:
            oldest = next(iter(self._columns))
            used -= self._columns.pop(oldest)[-1][1].bytes
