"""Searches that wait for their turn: admitted or refused at once, taken in batches, settled on their event loops.

Guarantees: at most so many queries wait; nothing is put behind the end that `close` marks. Knows nothing of indexes.
"""

import asyncio
import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field

from kintsugi.errors import ResourceExhausted, Unavailable
from kintsugi.telemetry import request_id
from shard import search_times
from shard.search_call import SearchCall, ShardHits


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A search and the coroutine that waits for it."""

    call: SearchCall
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[ShardHits]"
    called: float = field(default_factory=time.perf_counter)
    request_id: str = field(default_factory=request_id)

    def settle(self, outcome: ShardHits | Exception) -> None:
        """From any thread."""
        # A loop that has closed has nobody waiting.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: ShardHits | Exception) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class SearchQueue:
    """Many put, one thread takes."""

    def __init__(self, max_waiting_queries: int, max_batch_queries: int, retry_delay_s: float) -> None:
        self._max_waiting = max_waiting_queries
        self._max_batch = max_batch_queries
        self._retry_delay_s = retry_delay_s
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._waiting = 0
        self._is_closed = False

    @property
    def waiting_queries(self) -> int:
        return self._waiting

    def put(self, job: Job) -> None:
        """Raises ResourceExhausted when too many wait, Unavailable after `close`."""
        count = len(job.call.queries)
        with self._guard:
            if self._is_closed:
                raise closed()
            # A single call larger than the whole queue is taken when nothing waits: it could never be otherwise.
            if self._waiting and self._waiting + count > self._max_waiting:
                raise exhausted(f"{self._waiting} queries wait, at most {self._max_waiting}", self._retry_delay_s)
            self._waiting += count
            self._jobs.put(job)

    def take(self) -> tuple[list[Job], bool]:
        """Waits for a job; returns it with those behind it that fit into one batch, and whether the queue goes on."""
        first = self._jobs.get()
        if first is None:
            return [], False
        jobs, queries = [first], len(first.call.queries)
        goes_on = True
        while queries < self._max_batch:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                goes_on = False
                break
            jobs.append(job)
            queries += len(job.call.queries)
        with self._guard:
            self._waiting -= queries
        return jobs, goes_on

    def close(self) -> None:
        """Nothing can be put any more. Ends `take` once it has taken what was put before."""
        with self._guard:
            if not self._is_closed:
                self._is_closed = True
                self._jobs.put(None)

    def fail_waiting(self) -> None:
        """Settles what nobody will take."""
        # Nothing is queued behind the end marker: both happen under the guard.
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job.settle(closed())


def closed() -> Unavailable:
    return Unavailable("the searcher is closed", reason="INDEX_CLOSED")


def exhausted(message: str, retry_delay_s: float) -> ResourceExhausted:
    search_times.REFUSALS.inc()
    return ResourceExhausted(message, reason="SEARCH_QUEUE_FULL", retry_delay_s=retry_delay_s)
