"""Collects what the callers of one run see.

Only calls that end inside the window count: before it everything warms up, after it the callers wind down. Calls are
dealt queries in turn, so that all callers together go round the whole set.
"""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.processes import CpuMeter
from bench.statistics import NO_HIT, NOT_ASKED, IdMatrix


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured in one window. `found` has a row per query of the set, see statistics.NOT_ASKED. `errors` are
    the calls that failed, by error. `cpu_s` is what each process spent, `cores_elsewhere` how many cores on average worked for nobody measured here."""

    seconds: float
    queries: int
    latencies_ms: npt.NDArray[np.float64]
    found: IdMatrix
    errors: dict[str, int]
    cpu_s: dict[str, float]
    cores_elsewhere: float

    @property
    def queries_per_s(self) -> float:
        return self.queries / self.seconds


@dataclass(slots=True)
class Recorder:
    queries: int
    batch: int
    k: int
    pids: dict[str, int]
    found: IdMatrix = field(init=False)
    running: bool = True
    _next: int = 0
    _answered: int = 0
    _latencies_ns: list[int] = field(default_factory=list)
    _errors: Counter[str] = field(default_factory=Counter)
    _opened_ns: int = 0
    _meter: CpuMeter | None = None
    _load: Load | None = None

    def __post_init__(self) -> None:
        self.found = np.full((self.queries, self.k), NOT_ASKED, dtype=np.int64)

    def deal(self) -> npt.NDArray[np.int64]:
        """The queries of the next call."""
        first = self._next
        self._next = (first + self.batch) % self.queries
        return np.arange(first, first + self.batch) % self.queries

    def open(self) -> None:
        self._meter = CpuMeter(self.pids)
        self._opened_ns = time.perf_counter_ns()

    def answered(self, asked: npt.NDArray[np.int64], started_ns: int, ids: "npt.NDArray[np.int64] | list[int]") -> None:
        """`ids` of one query, or a row per query. Short rows were padded by the caller, or are by this."""
        took_ns = time.perf_counter_ns() - started_ns
        if self._meter is None or not self.running:
            return
        self._latencies_ns.append(took_ns)
        self._answered += len(asked)
        if isinstance(ids, list):
            self.found[asked[0]] = ids + [NO_HIT] * (self.k - len(ids))
        else:
            self.found[asked, : ids.shape[1]] = ids
            self.found[asked, ids.shape[1] :] = NO_HIT

    def failed(self, error: Exception) -> None:
        if self._meter is not None and self.running:
            self._errors[f"{type(error).__name__}: {error}"[:200]] += 1

    def close(self) -> None:
        """Ends the window; the callers stop after their calls in flight."""
        assert self._meter is not None
        seconds = (time.perf_counter_ns() - self._opened_ns) / 1e9
        self._load = Load(
            seconds=seconds,
            queries=self._answered,
            latencies_ms=np.array(self._latencies_ns, dtype=np.float64) / 1e6,
            found=self.found,
            errors=dict(self._errors),
            cpu_s=self._meter.seconds(),
            cores_elsewhere=self._meter.seconds_elsewhere() / seconds,
        )
        self.running = False

    @property
    def load(self) -> Load:
        assert self._load is not None
        return self._load
