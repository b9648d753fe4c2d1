"""Searches one replica for one model: queue, micro-batches, index, exact rescoring.

Outline of the search thread: take the first waiting job and whatever else waits; drop what is late or given up; group
the rest by what they ask for; search each group as one batch; rescore and rank it within one read transaction; widen
for the queries that are short of hits although the replica has more; resolve the futures on their event loops.

Guarantees: work that is late is not started; a job that fails fails alone; the thread outlives all of them; exact
searches run on a thread of their own and do not hold up the others. Knows nothing of RPC, tokens or coverage.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import numpy.typing as npt

from kintsugi.errors import DeadlineExceeded, KintsugiError, ResourceExhausted, Unavailable
from kintsugi.limits import MAX_CANDIDATES
from kintsugi.metrics import FloatArray
from kintsugi.telemetry import LogEvent, logger, request_id
from shard import search_times
from shard.checkpoint import IndexVersion
from shard.exact import exact_search
from shard.indexer import Indexer
from shard.reader import Fields, HitColumns
from shard.rescore import Ranked, Scored, rank, rescore
from shard.search_times import UNKNOWN, SearchTimes
from shard.source import DocumentSource

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


@dataclass(frozen=True, slots=True)
class SearchCall:
    """One search. `queries` is n x d float32. `deadline` in the searcher's clock, None for none. `oversampling`:
    candidates per hit, None for the encoding's default."""

    queries: FloatArray
    k: int
    exact: bool = False
    oversampling: float | None = None
    deadline: float | None = None
    fields: Fields = field(default_factory=Fields)


@dataclass(frozen=True, slots=True)
class ShardHits:
    """Columns of hits: those of the first query best first, then those of the second, and so on. `ids` in their
    ordered encoding; attributes and texts are empty unless asked for."""

    counts: list[int]
    ids: list[bytes]
    scores: npt.NDArray[np.float64]
    versions: npt.NDArray[np.uint64]
    attributes: list[str]
    texts: list[str]
    documents: int
    documents_with_vector: int
    index_version: int
    times: SearchTimes = UNKNOWN


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
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


_GroupKey = tuple[int, float | None, Fields]


class Searcher:
    """One per (replica, model). `start` it, `await search(...)` from coroutines, `close` it."""

    def __init__(
        self,
        source: DocumentSource,
        indexer: Indexer,
        *,
        settings: SearcherSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._indexer = indexer
        self._model = indexer.model
        self._settings = settings or SearcherSettings()
        self._clock = clock
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._waiting_queries = 0
        self._waiting_exact = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._main, name=f"search-{self._model.number}", daemon=True)
        self._exact = ThreadPoolExecutor(1, thread_name_prefix=f"exact-{self._model.number}")

    @property
    def waiting_queries(self) -> int:
        """Queries that wait for the search thread."""
        return self._waiting_queries

    def start(self) -> None:
        self._thread.start()

    async def search(self, call: SearchCall) -> ShardHits:
        """Raises ResourceExhausted when the queue is full, DeadlineExceeded when the search could not be started in
        time, Unavailable while there is no index and after `close`."""
        loop = asyncio.get_running_loop()
        job = _Job(call, loop, loop.create_future())
        if call.exact:
            self._submit_exact(job)
        else:
            self._enqueue(job)
        return await job.future

    def close(self) -> None:
        """Fails what waits and ends the threads. Blocks until the batch in work is done."""
        with self._guard:
            if self._is_closed:
                return
            self._is_closed = True
            self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._fail_waiting()
        self._exact.shutdown()

    # Admission

    def _enqueue(self, job: _Job) -> None:
        count = len(job.call.queries)
        with self._guard:
            self._check_open()
            # A single call larger than the whole queue is taken when nothing waits: it could never be otherwise.
            if self._waiting_queries and self._waiting_queries + count > self._settings.max_waiting_queries:
                raise self._exhausted(
                    f"{self._waiting_queries} queries wait, at most {self._settings.max_waiting_queries}"
                )
            self._waiting_queries += count
            self._queue.put(job)

    def _submit_exact(self, job: _Job) -> None:
        with self._guard:
            self._check_open()
            if self._waiting_exact >= self._settings.max_waiting_exact:
                raise self._exhausted(
                    f"{self._waiting_exact} exact searches wait, at most {self._settings.max_waiting_exact}"
                )
            self._waiting_exact += 1
            search_times.EXACT.inc()
            self._exact.submit(self._run_exact, job)

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed()

    def _exhausted(self, message: str) -> ResourceExhausted:
        search_times.REFUSALS.inc()
        return ResourceExhausted(message, reason="SEARCH_QUEUE_FULL", retry_delay_s=self._settings.retry_delay_s)

    # The search thread

    def _main(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs, goes_on = self._drain(job)
            groups: dict[_GroupKey, list[_Job]] = {}
            for member in jobs:
                call = member.call
                groups.setdefault((call.k, call.oversampling, call.fields), []).append(member)
            for group in groups.values():
                self._run_group(group)
            if not goes_on:
                break
        self._fail_waiting()

    def _drain(self, first: _Job) -> tuple[list[_Job], bool]:
        """The first job and those behind it that fit into one batch, and whether the queue goes on."""
        jobs, queries = [first], len(first.call.queries)
        goes_on = True
        while queries < self._settings.max_batch_queries:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                goes_on = False
                break
            jobs.append(job)
            queries += len(job.call.queries)
        with self._guard:
            self._waiting_queries -= queries
        return jobs, goes_on

    def _fail_waiting(self) -> None:
        # Nothing is queued behind the end marker: both happen under the guard.
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job.settle(_closed())

    def _run_group(self, group: list[_Job]) -> None:
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

    def _settle_failed(self, job: _Job, error: Exception) -> None:
        if not isinstance(error, KintsugiError):
            _log.error(LogEvent.SEARCH_FAILED, model=self._model.number, request_id=job.request_id, exc_info=error)
        job.settle(error)

    def _is_wanted(self, job: _Job) -> bool:
        """Whether to start: settles what is late, skips what was cancelled."""
        if job.future.cancelled():
            return False
        if self._is_late(job):
            job.settle(DeadlineExceeded("the deadline passed while the search waited for its turn"))
            return False
        return True

    def _is_late(self, job: _Job) -> bool:
        return job.call.deadline is not None and self._clock() >= job.call.deadline

    def _search_together(self, jobs: list[_Job]) -> None:
        serving = self._indexer.serving
        if serving is None:
            raise Unavailable("the index is not built yet", reason="INDEX_BUILDING")
        started = time.perf_counter()
        for job in jobs:
            search_times.QUEUE_SECONDS.observe(started - job.called)
        call = jobs[0].call
        queries = jobs[0].call.queries if len(jobs) == 1 else np.concatenate([job.call.queries for job in jobs])
        oversampling = call.oversampling or serving.index.encoding.oversampling
        count = max(call.k, min(ceil(call.k * oversampling), MAX_CANDIDATES))
        batch = self._search_batch(serving, queries, call, count, started)
        short = self._short_queries(batch, call.k)
        start = 0
        for job in jobs:
            end = start + len(job.call.queries)
            if not short[start:end].any():
                job.settle(batch.hits(start, end))
            elif not self._widen(job, serving, count, started):
                self._hand_to_exact(job)
            start = end

    def _search_batch(
        self, serving: IndexVersion, queries: FloatArray, call: SearchCall, count: int, started: float
    ) -> "_Batch":
        began = time.perf_counter()
        candidates = serving.index.search(queries, count)
        searched = time.perf_counter()
        with self._source.reading() as snapshot:
            scored = rescore(snapshot, self._model.number, self._model.metric, queries, candidates, call.k)
            columns = snapshot.hits(_rows_of(scored), call.fields)
        batch = self._ranked(scored, columns, call.k, serving.number)
        found = sum(map(len, candidates))
        times = SearchTimes(started, searched, time.perf_counter(), len(queries), found)
        search_times.count_batch(began, times)
        return replace(batch, times=times)

    def _ranked(self, scored: Sequence[Scored], columns: HitColumns, k: int, index_version: int) -> "_Batch":
        return _Batch(
            ranked=[rank(one, columns, k) for one in scored],
            columns=columns,
            documents=self._source.documents,
            documents_with_vector=self._source.documents_with_vector(self._model.number),
            index_version=index_version,
        )

    def _short_queries(self, batch: "_Batch", k: int) -> npt.NDArray[np.bool_]:
        wanted = min(k, batch.documents_with_vector)
        return np.array([len(one.places) < wanted for one in batch.ranked], dtype=np.bool_)

    def _widen(self, job: _Job, serving: IndexVersion, count: int, started: float) -> bool:
        """Searches again with more candidates until every query has its hits. False: the index cannot give them."""
        call = job.call
        while count < min(len(serving.index), MAX_CANDIDATES):
            if not self._is_wanted(job):
                return True
            count = min(4 * count, MAX_CANDIDATES)
            search_times.WIDENED.inc()
            batch = self._search_batch(serving, call.queries, call, count, started)
            if not self._short_queries(batch, call.k).any():
                job.settle(batch.hits(0, len(call.queries)))
                return True
        return False

    def _hand_to_exact(self, job: _Job) -> None:
        """The stored vectors have what the index has not, or not yet."""
        try:
            self._submit_exact(job)
        except (ResourceExhausted, Unavailable) as error:
            job.settle(error)

    # The thread of exact searches

    def _run_exact(self, job: _Job) -> None:
        try:
            if self._is_closed:
                job.settle(_closed())
            elif self._is_wanted(job):
                job.settle(self._search_exactly(job))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
            self._settle_failed(job, error)
        finally:
            with self._guard:
                self._waiting_exact -= 1

    def _search_exactly(self, job: _Job) -> ShardHits:
        call, model = job.call, self._model
        serving = self._indexer.serving
        started = time.perf_counter()

        def is_unwanted() -> bool:
            return self._is_closed or job.future.cancelled() or self._is_late(job)

        scored = exact_search(self._source, model.number, model.metric, call.queries, call.k, is_unwanted)
        searched, found = time.perf_counter(), sum(len(one.rows) for one in scored)
        with self._source.reading() as snapshot:
            # Once more, since a document may have changed between its block and now: score and version must agree.
            rows = [one.rows for one in scored]
            scored = rescore(snapshot, model.number, model.metric, call.queries, rows, call.k)
            columns = snapshot.hits(_rows_of(scored), call.fields)
        batch = self._ranked(scored, columns, call.k, serving.number if serving is not None else 0)
        times = SearchTimes(started, searched, time.perf_counter(), len(call.queries), found)
        return replace(batch, times=times).hits(0, len(call.queries))


@dataclass(frozen=True, slots=True)
class _Batch:
    """The answers to a batch of queries, whose hits share columns."""

    ranked: list[Ranked]
    columns: HitColumns
    documents: int
    documents_with_vector: int
    index_version: int
    times: SearchTimes = UNKNOWN

    def hits(self, start: int, end: int) -> ShardHits:
        """The columns of some consecutive queries."""
        mine, columns = self.ranked[start:end], self.columns
        places = np.concatenate([one.places for one in mine]) if mine else np.empty(0, dtype=np.intp)
        listed = places.tolist()
        return ShardHits(
            counts=[len(one.places) for one in mine],
            ids=[columns.ids[place] for place in listed],
            scores=np.concatenate([one.scores for one in mine]) if mine else np.empty(0, dtype=np.float64),
            versions=columns.versions[places],
            attributes=[columns.attributes[place] for place in listed] if columns.attributes else [],
            texts=[columns.texts[place] for place in listed] if columns.texts else [],
            documents=self.documents,
            documents_with_vector=self.documents_with_vector,
            index_version=self.index_version,
            times=self.times,
        )


def _rows_of(scored: Sequence[Scored]) -> npt.NDArray[np.uint64]:
    return np.unique(np.concatenate([one.rows for one in scored]))


def _closed() -> Unavailable:
    return Unavailable("the searcher is closed", reason="INDEX_CLOSED")
