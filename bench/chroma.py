"""Chroma as the peer: its server as a process of its own, and its own client in a process that asks as ours does.

The only module that knows Chroma, which is optional: `pip install --editable '.[bench-peer]'`. It is imported by name,
so that types are the same whether it is installed or not.
"""

import asyncio
import importlib
import importlib.util
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from bench.callers import Call, Indices, closed_loop
from bench.datasets import F32Matrix
from bench.recorder import Load, Recorder
from bench.statistics import IdMatrix
from bench.workloads import SearchWorkload
from kintsugi.errors import FailedPrecondition
from kintsugi.local.folder import HOST, take_port
from kintsugi.local.process import Command, ManagedProcess

_MODULE = "chromadb"
_COLLECTION = "bench"
_READY_S, _POLL_S = 60.0, 0.2
_STOP_S = 30.0
# Several adds at once, as our bulk upsert has: Chroma's client encodes one while its server takes in another.
_ADDS_IN_FLIGHT = 4
_ASKED_AT_ONCE = 64
# More than any workload's callers: fewer would make Chroma's client connect anew for calls.
_CONNECTIONS = 256


def check(module: str = _MODULE) -> None:
    """Raises before minutes are spent when there is no peer."""
    if importlib.util.find_spec(module) is None:
        raise FailedPrecondition("peer needs Chroma: pip install --editable '.[bench-peer]'")


class ChromaServer:
    """On a free port, with its data in a new folder: `with ChromaServer(folder) as server: server.port`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port = take_port(None, set())
        start = f"from {_MODULE}.cli.cli import app; app()"
        where = ["--path", str(folder / "data"), "--host", HOST, "--port", str(self.port)]
        # Without a log line per request, which would slow it down.
        environment = {**os.environ, "ANONYMIZED_TELEMETRY": "False", "RUST_LOG": "error"}
        self._command = Command(
            [sys.executable, "-c", start, "run", *where], environment, folder, folder / "chroma.log"
        )
        self._process = ManagedProcess("chroma")

    @property
    def pid(self) -> int:
        return self._process.pid

    def restart(self) -> None:
        self._stop()
        self._start()

    def _start(self) -> None:
        self._process.start(self._command)
        end = time.monotonic() + _READY_S
        while self._process.running and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://{HOST}:{self.port}/api/v2/heartbeat", timeout=1):
                    return
            except OSError:
                time.sleep(_POLL_S)
        raise TimeoutError(f"chroma does not answer on port {self.port}:\n{self._process.log_end()}")

    def _stop(self) -> None:
        self._process.signal(signal.SIGTERM)
        if not self._process.wait(time.monotonic() + _STOP_S):
            self._process.signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


class ChromaClient:
    """Lives in a client process of its own, and measures as callers.LoadClient does: one event loop, Chroma's own
    client."""

    def __init__(self, port: int, queries_path: str, k: int) -> None:
        self._port = port
        self._queries: F32Matrix = np.load(queries_path)
        self._k = k
        # One loop for all calls: Chroma's client keeps its connections by loop.
        self._runner = asyncio.Runner()

    def ingest(self, vectors_path: str) -> float:
        """Writes all vectors, in place of those before, and returns the seconds until a search finds the last ones."""
        return self._runner.run(self._ingest(np.load(vectors_path, mmap_mode="r")))

    async def _ingest(self, vectors: F32Matrix) -> float:
        client = await self._connected()
        for old in await client.list_collections():
            await client.delete_collection(old.name)
        space = {"hnsw": {"space": "cosine"}}
        collection = await client.create_collection(_COLLECTION, configuration=space, embedding_function=None)
        size = await client.get_max_batch_size()
        turns = asyncio.Semaphore(_ADDS_IN_FLIGHT)

        async def add(first: int) -> None:
            async with turns:
                block = np.asarray(vectors[first : first + size])
                await collection.add(ids=[str(first + place) for place in range(len(block))], embeddings=block)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for first in range(0, len(vectors), size):
                tasks.create_task(add(first))
        # Chroma answers a search after it has indexed what was added before.
        found = await collection.query(query_embeddings=np.asarray(vectors[-1:]), n_results=1, include=[])
        seconds = time.perf_counter() - started
        if found["ids"] != [[str(len(vectors) - 1)]] or await collection.count() != len(vectors):
            raise RuntimeError(f"chroma does not find what was added last: {found['ids']}")
        return seconds

    def broaden(self, ef_search: int) -> None:
        """How many candidates its graph search looks at, from the next start of the server on: an index that is loaded
        keeps what it was loaded with, whatever its collection says."""
        self._runner.run(self._broaden(ef_search))

    async def _broaden(self, ef_search: int) -> None:
        collection = await self._collection()
        await collection.modify(configuration={"hnsw": {"ef_search": ef_search}})

    def found(self) -> IdMatrix:
        """The answers to all queries."""
        return self._runner.run(self._found())

    async def _found(self) -> IdMatrix:
        call = self._by_query(await self._collection())
        starts = range(0, len(self._queries), _ASKED_AT_ONCE)
        parts = [np.arange(first, min(first + _ASKED_AT_ONCE, len(self._queries))) for first in starts]
        return np.concatenate([np.asarray(await call(part)).reshape(len(part), -1) for part in parts])

    def run(self, workload: SearchWorkload, pids: dict[str, int], warmup_s: float, seconds: float) -> Load:
        recorder = Recorder(len(self._queries), workload.batch, self._k, pids)
        self._runner.run(self._run(workload, recorder, warmup_s, seconds))
        return recorder.load

    async def _run(self, workload: SearchWorkload, recorder: Recorder, warmup_s: float, seconds: float) -> None:
        call = self._by_query(await self._collection())
        await closed_loop(call, workload.callers, recorder, warmup_s, seconds)

    def _by_query(self, collection: Any) -> Call:
        async def call(asked: Indices) -> "Indices | list[int]":
            # Ids and scores, as our hits have.
            answer = await collection.query(
                query_embeddings=self._queries[asked], n_results=self._k, include=["distances"]
            )
            return np.array(answer["ids"], dtype=np.int64)

        return call

    async def _collection(self) -> Any:
        client = await self._connected()
        return await client.get_collection(_COLLECTION, embedding_function=None)

    async def _connected(self) -> Any:
        chromadb = importlib.import_module(_MODULE)
        settings = chromadb.Settings(
            anonymized_telemetry=False,
            chroma_http_max_connections=_CONNECTIONS,
            chroma_http_max_keepalive_connections=_CONNECTIONS,
        )
        return await chromadb.AsyncHttpClient(host=HOST, port=self._port, settings=settings)
