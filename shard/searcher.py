"""Searches one replica for one model: admission, micro-batches on a search thread, exact searches on another.

Outline of the search thread: take the first waiting job and whatever else waits; drop what is late or given up; group
the rest by what they ask for; search each group as one batch; widen for the jobs that are short of hits although the
replica has more; hand those that the index cannot answer to the exact thread; resolve the futures on their event loops.

Guarantees: work that is late is not started; a job that fails fails alone; the thread outlives all of them; exact
searches run on a thread of their own and do not hold up the others. Knows nothing of RPC, tokens or coverage.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kintsugi import failpoints
from kintsugi.errors import DeadlineExceeded, KintsugiError, ResourceExhausted, Unavailable
from kintsugi.telemetry import LogEvent, logger
from shard import search_times
from shard.checkpoint import IndexVersion
from shard.crossing import Crossings, no_crossing
from shard.indexer import Indexer
from shard.search_batch import BatchSearch
from shard.search_call import Kind, SearchCall, ShardHits
from shard.search_queue import Job, SearchQueue, closed, exhausted
from shard.source import DocumentSource

Observe = Callable[[SearchCall, ShardHits], None]

_log = logger("searcher")


@dataclass(frozen=True, slots=True)
class SearcherSettings:
    """`max_waiting_queries`: beyond it searches are refused; about what the thread answers within a deadline.
    `max_batch_queries`: taken into one batch; raise it for throughput, lower it for latency under load.
    `max_waiting_exact`: exact searches waiting; each may take as long as a scan of all vectors."""

    max_waiting_queries: int = 4096
    max_batch_queries: int = 64
    max_waiting_exact: int = 64
    retry_delay_s: float = 0.1


class Searcher:
    """One per (replica, model). `start` it, `await search(...)` from coroutines, `close` it.

    `observe(call, hits)` is told every search that the index answered, on the search thread: it must be quick and must
    not raise. `crossings` tells how documents of another model are searched along, while there is an upgrade."""

    def __init__(
        self,
        source: DocumentSource,
        indexer: Indexer,
        *,
        settings: SearcherSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        observe: Observe = lambda _call, _hits: None,
        crossings: Crossings = no_crossing,
    ) -> None:
        self._indexer = indexer
        self._settings = settings or SearcherSettings()
        self._clock = clock
        self._observe = observe
        self._batches = BatchSearch(source, indexer.model, crossings, lambda: indexer.steady)
        self._queue = SearchQueue(
            self._settings.max_waiting_queries, self._settings.max_batch_queries, self._settings.retry_delay_s
        )
        self._guard = threading.Lock()
        self._waiting_exact = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._main, name=f"search-{indexer.model.number}", daemon=True)
        self._exact = ThreadPoolExecutor(1, thread_name_prefix=f"exact-{indexer.model.number}")

    @property
    def waiting_queries(self) -> int:
        """Queries that wait for the search thread."""
        return self._queue.waiting_queries

    def start(self) -> None:
        self._thread.start()

    async def search(self, call: SearchCall) -> ShardHits:
        """Raises ResourceExhausted when the queue is full, DeadlineExceeded when the search could not be started in
        time, Unavailable while there is no index and after `close`."""
        loop = asyncio.get_running_loop()
        job = Job(call, loop, loop.create_future())
        if call.exact:
            self._submit_exact(job)
        else:
            self._queue.put(job)
        return await job.future

    def close(self) -> None:
        """Fails what waits and ends the threads. Blocks until the batch in work is done."""
        with self._guard:
            if self._is_closed:
                return
            self._is_closed = True
        self._queue.close()
        if self._thread.is_alive():
            self._thread.join()
        self._queue.fail_waiting()
        self._exact.shutdown()

    def _submit_exact(self, job: Job) -> None:
        limit = self._settings.max_waiting_exact
        with self._guard:
            if self._is_closed:
                raise closed()
            if self._waiting_exact >= limit:
                message = f"{self._waiting_exact} exact searches wait, at most {limit}"
                raise exhausted(message, self._settings.retry_delay_s)
            self._waiting_exact += 1
            search_times.EXACT.inc()
            self._exact.submit(self._run_exact, job)

    # The search thread

    def _main(self) -> None:
        goes_on = True
        while goes_on:
            jobs, goes_on = self._queue.take()
            groups: dict[Kind, list[Job]] = {}
            for job in jobs:
                groups.setdefault(job.call.kind, []).append(job)
            for group in groups.values():
                self._run_group(group)
        self._queue.fail_waiting()

    def _run_group(self, group: list[Job]) -> None:
        jobs = [job for job in group if self._is_wanted(job)]
        if not jobs:
            return
        try:
            self._search_together(jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller, the thread must go on
            if len(jobs) == 1:
                self._settle_failed(jobs[0], error)
                return
            # One of them may be to blame: it must not fail the others.
            for job in jobs:
                self._run_group([job])

    def _settle_failed(self, job: Job, error: Exception) -> None:
        if not isinstance(error, KintsugiError):
            number = self._indexer.model.number
            _log.error(LogEvent.SEARCH_FAILED, model=number, request_id=job.request_id, exc_info=error)
        job.settle(error)

    def _is_wanted(self, job: Job) -> bool:
        """Whether to start: settles what is late, skips what was cancelled."""
        if job.future.cancelled():
            return False
        if self._is_late(job):
            job.settle(DeadlineExceeded("the deadline passed while the search waited for its turn"))
            return False
        return True

    def _is_late(self, job: Job) -> bool:
        return job.call.deadline is not None and self._clock() >= job.call.deadline

    def _search_together(self, jobs: list[Job]) -> None:
        serving = self._indexer.serving
        started = time.perf_counter()
        for job in jobs:
            search_times.QUEUE_SECONDS.observe(started - job.called)
        failpoints.hit("searcher.batch")
        calls = [job.call for job in jobs]
        answers = self._batches.search(serving, calls, started, lambda: all(map(self._is_late, jobs)))
        start = 0
        for job in jobs:
            end = start + len(job.call.queries)
            if not answers.short[start:end].any():
                self._settle(job, answers.hits(start, end))
            else:
                self._answer_short(job, serving, started)
            start = end

    def _answer_short(self, job: Job, serving: IndexVersion | None, started: float) -> None:
        answers = self._batches.widen(serving, job.call, started, lambda: not self._is_wanted(job))
        if answers is not None:
            self._settle(job, answers.hits(0, len(job.call.queries)))
        elif self._is_wanted(job):
            self._hand_to_exact(job)

    def _settle(self, job: Job, hits: ShardHits) -> None:
        job.settle(hits)
        self._observe(job.call, hits)

    def _hand_to_exact(self, job: Job) -> None:
        """The stored vectors have what the index has not, or not yet."""
        try:
            self._submit_exact(job)
        except (ResourceExhausted, Unavailable) as error:
            job.settle(error)

    # The thread of exact searches

    def _run_exact(self, job: Job) -> None:
        try:
            if self._is_closed:
                job.settle(closed())
            elif self._is_wanted(job):
                job.settle(self._search_exactly(job))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
            self._settle_failed(job, error)
        finally:
            with self._guard:
                self._waiting_exact -= 1

    def _search_exactly(self, job: Job) -> ShardHits:
        serving = self._indexer.serving

        def is_unwanted() -> bool:
            return self._is_closed or job.future.cancelled() or self._is_late(job)

        answers = self._batches.search_exactly(job.call, serving.number if serving is not None else 0, is_unwanted)
        return answers.hits(0, len(job.call.queries))
