"""The ways in which searches reach the cluster, as closed loops inside the client process.

A latency is what the caller sees: from before the call to the ids in hand. With many callers in one event loop that
includes waiting for one's turn in the client.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc.aio
import numpy as np
import numpy.typing as npt
import uvloop

from bench.datasets import F32Matrix
from bench.recorder import Load, Recorder
from bench.statistics import IdMatrix
from bench.workloads import Caller, SearchWorkload
from kintsugi import AsyncClient, Client
from kintsugi.limits import MAX_MESSAGE_BYTES, MAX_QUERIES
from kintsugi.sdk import requests
from kintsugi.sdk.options import SearchOptions
from kintsugi.v1 import search_pb2, search_pb2_grpc

Indices = npt.NDArray[np.int64]
Call = Callable[[Indices], Awaitable["Indices | list[int]"]]


async def closed_loop(call: Call, callers: int, recorder: Recorder, warmup_s: float, seconds: float) -> None:
    """So many callers at once in this event loop, until the window has closed and all calls have ended."""

    async def loop() -> None:
        while recorder.running:
            asked = recorder.deal()
            started = time.perf_counter_ns()
            try:
                ids = await call(asked)
            except Exception as error:  # noqa: BLE001 - counted and reported
                recorder.failed(error)
            else:
                recorder.answered(asked, started, ids)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(loop())
        await asyncio.sleep(warmup_s)
        recorder.open()
        await asyncio.sleep(seconds)
        recorder.close()


class LoadClient:
    """Lives in the client process. `client_loop` is asyncio or uvloop."""

    def __init__(self, address: str, collection: str, queries_path: str, k: int, client_loop: str) -> None:
        self._address = address
        self._collection = collection
        self._queries: F32Matrix = np.load(queries_path)
        self._k = k
        self._loop_factory = uvloop.new_event_loop if client_loop == "uvloop" else asyncio.new_event_loop

    def ingest(self, vectors_path: str, collection: str) -> float:
        """Writes all vectors and returns the seconds until searches find them. Raises when one was not written."""
        vectors = np.load(vectors_path, mmap_mode="r")
        ids = np.arange(len(vectors), dtype=np.uint64)
        with Client(self._address) as client:
            started = time.perf_counter()
            result = client.bulk_upsert(collection, ids, vectors, acknowledgement="searchable", progress=False)
            seconds = time.perf_counter() - started
        if result.unapplied:
            raise RuntimeError(f"{len(result.unapplied)} vectors were not written, the first: {result.unapplied[0]}")
        return seconds

    def run(self, workload: SearchWorkload, pids: dict[str, int], warmup_s: float, seconds: float) -> Load:
        recorder = Recorder(len(self._queries), workload.batch, self._k, pids)
        if workload.caller is Caller.SDK_SYNC:
            self._run_sync(workload, recorder, warmup_s, seconds)
        else:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._run_async(workload, recorder, warmup_s, seconds))
        return recorder.load

    def found(self, ef_search: int) -> IdMatrix:
        """The answers to all queries, with so many candidates."""
        starts = range(0, len(self._queries), MAX_QUERIES)
        with Client(self._address) as client:
            parts = [
                client.search_batch(
                    self._collection, self._queries[first : first + MAX_QUERIES], self._k, ef_search=ef_search
                ).ids
                for first in starts
            ]
        return np.concatenate(parts).astype(np.int64)

    # --- One thread

    def _run_sync(self, workload: SearchWorkload, recorder: Recorder, warmup_s: float, seconds: float) -> None:
        window = threading.Timer(warmup_s, recorder.open), threading.Timer(warmup_s + seconds, recorder.close)
        with Client(self._address) as client:
            for timer in window:
                timer.start()
            while recorder.running:
                asked = recorder.deal()
                started = time.perf_counter_ns()
                try:
                    result = client.search(self._collection, self._queries[asked[0]], self._k, **_options(workload))
                except Exception as error:  # noqa: BLE001 - counted and reported
                    recorder.failed(error)
                else:
                    recorder.answered(asked, started, [int(hit.id) for hit in result.hits])
        for timer in window:
            timer.join()

    # --- One event loop

    async def _run_async(self, workload: SearchWorkload, recorder: Recorder, warmup_s: float, seconds: float) -> None:
        async with self._calling(workload) as call:
            await closed_loop(call, workload.callers, recorder, warmup_s, seconds)

    @asynccontextmanager
    async def _calling(self, workload: SearchWorkload) -> AsyncIterator[Call]:
        if workload.caller is Caller.GRPC:
            options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
            async with grpc.aio.insecure_channel(self._address, options=options) as channel:
                yield self._by_stub(search_pb2_grpc.SearchStub(channel), _options(workload))
        else:
            async with AsyncClient(self._address) as client:
                by = self._by_batch if workload.caller is Caller.SDK_BATCH else self._by_search
                yield by(client, _options(workload))

    def _by_search(self, client: AsyncClient, options: SearchOptions) -> Call:
        async def call(asked: Indices) -> list[int]:
            result = await client.search(self._collection, self._queries[asked[0]], self._k, **options)
            return [int(hit.id) for hit in result.hits]

        return call

    def _by_batch(self, client: AsyncClient, options: SearchOptions) -> Call:
        async def call(asked: Indices) -> Indices:
            result = await client.search_batch(self._collection, self._queries[asked], self._k, **options)
            return np.asarray(result.ids.astype(np.int64))

        return call

    def _by_stub(self, stub: "search_pb2_grpc.SearchAsyncStub", given: SearchOptions) -> Call:
        options = requests.search_options(self._k, given)

        async def call(asked: Indices) -> list[int]:
            vector = search_pb2.QueryVector(data=self._queries[asked[0]].tobytes())
            request = search_pb2.SearchRequest(collection=self._collection, vectors=[vector], options=options)
            response = await stub.Search(request)
            return [hit.id.integer for hit in response.hits]

        return call


def _options(workload: SearchWorkload) -> SearchOptions:
    return {"oversampling": workload.oversampling, "ef_search": workload.ef_search}
