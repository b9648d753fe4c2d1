"""A fair draw from a stream that nobody counts in advance: a window's samples are drawn of all that came, whatever their number.

Once it is full, only the number of the next one to be taken is drawn (Li's algorithm L), so that most cost a comparison.
"""

import math
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Reservoir(Generic[T]):
    """Safe from any thread. `capacity`: the most samples of a window, 0 for none."""

    def __init__(self, capacity: int, draw: np.random.Generator | None = None) -> None:
        self._capacity = capacity
        self._draw = draw or np.random.default_rng()
        self._lock = threading.Lock()
        self._begin()

    def observe(self, count: int, sample: Callable[[int], T]) -> None:
        """Told of each that came, `count` at once. `sample` makes those that are drawn, by their place from 0."""
        if not self._capacity:
            return
        with self._lock:
            first = self._seen
            self._seen += count
            while self._next < self._seen:
                self._keep(sample(self._next - first))

    def take(self) -> list[T]:
        """The samples of the window that ends now."""
        with self._lock:
            taken = self._window
            self._begin()
        return taken

    def _begin(self) -> None:
        self._window: list[T] = []
        self._seen = self._next = 0
        self._threshold = 1.0

    def _keep(self, sample: T) -> None:
        """Takes the one with the number `_next`, and decides which is the next one."""
        if len(self._window) < self._capacity:
            self._window.append(sample)
        else:
            self._window[int(self._draw.integers(self._capacity))] = sample
        if len(self._window) < self._capacity:
            self._next += 1
            return
        self._threshold *= math.exp(-self._draw.standard_exponential() / self._capacity)
        threshold = min(max(self._threshold, 1e-300), 1 - 1e-12)
        self._next += 1 + int(self._draw.standard_exponential() / -math.log1p(-threshold))
