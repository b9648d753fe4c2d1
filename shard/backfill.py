"""Which documents of a replica are re-embedded next: those that lack a vector of the model, the most urgent first.

The order: what the asker names; what recent searches asked for (shard/heat.py), the hottest first; then windows of rows in
row order, within a window what the projection is least sure of first. Without a predictor, rows in their order.

Guarantees:
1. A row is handed out at most once within its lease, whoever asks.
2. Only rows that are there and lack a vector are handed out: the documents are asked again each time, so that what was
   embedded meanwhile is skipped, and what was lost by a worker comes again when its lease is over.
3. What was handed out must be searched for anew to be hot again: documents that nobody can embed hold up no others.
4. Memory is bounded: so many leases, so many hot rows, one window.

Leases are for efficiency: they end with the process, and a document that is embedded twice is harmless. Knows neither RPC nor
what becomes of the documents.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from kintsugi.ann.vector_index import Rows
from shard.heat import Heat

WINDOW_ROWS: Final = 10_000
MAX_LEASES: Final = 500_000

# Rows that are asked about at once.
_CHUNK: Final = 1000

# How unsure the projection is of each row: higher is less sure. None: it cannot tell.
Unsure: TypeAlias = Callable[[Rows], npt.NDArray[np.float64] | None]


class Lacking(Protocol):
    """The documents of a replica that lack a vector of the model, at the time of each call."""

    def among(self, rows: Rows) -> Rows:
        """Those of some rows that are there and lack it, in the order given."""
        ...

    def after(self, row: int, limit: int) -> Rows:
        """The next rows behind `row` that lack it, in row order: at most `limit`, and fewer only at the end."""
        ...


class Leases:
    """Rows that somebody works on, each until its own time."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._ends: list[tuple[float, int]] = []
        self._rows: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def room(self) -> int:
        """How many more there may be, after those that are over were let go."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            end, row = heapq.heappop(self._ends)
            # Not one that was given back and taken anew.
            if self._rows.get(row) == end:
                del self._rows[row]
        return self._most - len(self._rows)

    def free(self, rows: Iterable[int]) -> list[int]:
        return [row for row in rows if row not in self._rows]

    def add(self, rows: Sequence[int], lease_s: float) -> None:
        end = self._clock() + lease_s
        for row in rows:
            heapq.heappush(self._ends, (end, row))
        self._rows.update(dict.fromkeys(rows, end))

    def oldest(self, most: int) -> list[int]:
        return list(islice(self._rows, most))

    def end(self, rows: Iterable[int]) -> None:
        for row in rows:
            self._rows.pop(row, None)


class BackfillQueue:
    """One per replica and model. `next` blocks on the documents and may be called by any thread; callers take turns."""

    def __init__(
        self,
        lacking: Lacking,
        heat: Heat,
        *,
        unsure: Unsure = lambda _rows: None,
        clock: Callable[[], float] = time.monotonic,
        window_rows: int = WINDOW_ROWS,
        max_leases: int = MAX_LEASES,
    ) -> None:
        self._lacking = lacking
        self._heat = heat
        self._unsure = unsure
        self._window_rows = window_rows
        self._leases = Leases(max_leases, clock)
        self._turn = threading.Lock()
        self._window: deque[int] = deque()
        self._scanned = 0

    def next(self, limit: int, lease_s: float, first: Sequence[int] = ()) -> Rows:
        """At most `limit` rows, which nobody else gets for `lease_s`. Fewer only when there are no more, or the leases
        are all taken."""
        with self._turn:
            picked: dict[int, None] = {}
            self._end_settled()
            limit = min(limit, self._leases.room())
            self._pick(picked, limit, first)
            self._pick_hot(picked, limit)
            self._pick_windows(picked, limit)
            self._leases.add(list(picked), lease_s)
        return np.fromiter(picked, np.uint64, len(picked))

    def give_back(self, rows: Rows) -> None:
        """Rows that were not handed out after all: they are the next ones."""
        with self._turn:
            self._leases.end(rows.tolist())
            self._window.extendleft(reversed(rows.tolist()))

    def _end_settled(self) -> None:
        """Lets go of what got its vector: a row that loses it again, because its document is rewritten, waits for no lease."""
        oldest = self._leases.oldest(_CHUNK)
        if oldest:
            there = self._lacking.among(np.array(oldest, dtype=np.uint64))
            self._leases.end(set(oldest).difference(there.tolist()))

    def _pick_hot(self, picked: dict[int, None], limit: int) -> None:
        if len(picked) >= limit:
            return
        settled = self._pick(picked, limit, self._heat.hottest().tolist())
        self._heat.forget([*settled, *picked])

    def _pick_windows(self, picked: dict[int, None], limit: int) -> None:
        """Goes through the rest of the window, then once around all rows."""
        began, turned = self._scanned, False
        while len(picked) < limit:
            if not self._window:
                if turned and self._scanned >= began:
                    return
                if not self._scan():
                    if turned:
                        return
                    turned, self._scanned = True, 0
                continue
            chunk = [self._window.popleft() for _ in range(min(_CHUNK, len(self._window)))]
            room = limit - len(picked)
            there = self._open(chunk, picked)
            picked.update(dict.fromkeys(there[:room]))
            self._window.extendleft(reversed(there[room:]))

    def _scan(self) -> bool:
        """Fetches the next window and puts what is least sure first. False at the end of the rows."""
        rows = self._lacking.after(self._scanned, self._window_rows)
        if not len(rows):
            return False
        self._scanned = int(rows[-1])
        unsure = self._unsure(rows)
        ordered = rows if unsure is None else rows[np.argsort(-unsure.astype(np.float64), kind="stable")]
        self._window.extend(ordered.tolist())
        return True

    def _pick(self, picked: dict[int, None], limit: int, rows: Sequence[int]) -> list[int]:
        """Picks of rows in order, and returns those that it found to lack nothing."""
        settled: list[int] = []
        free = self._leases.free(rows)
        for at in range(0, len(free), _CHUNK):
            if len(picked) >= limit:
                break
            chunk = free[at : at + _CHUNK]
            there = self._open(chunk, {})
            settled += set(chunk).difference(there)
            for row in there:
                if len(picked) < limit:
                    picked[row] = None
        return settled

    def _open(self, rows: Sequence[int], picked: dict[int, None]) -> list[int]:
        """Those of some rows that may be handed out."""
        free = [row for row in self._leases.free(rows) if row not in picked]
        if not free:
            return []
        found: list[int] = self._lacking.among(np.array(free, dtype=np.uint64)).tolist()
        return found
