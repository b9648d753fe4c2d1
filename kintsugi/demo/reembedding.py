"""Workers that re-embed the documents, threads of the demo: the ones of `kintsugi upgrade backfill`, made slow enough to watch.

Guarantees that leaving the block ends them soon.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from kintsugi.backfill.embedder import F32Matrix, matrix_of
from kintsugi.backfill.worker import Progress, Worker, WorkerSettings
from kintsugi.demo import embed
from kintsugi.demo.embed import Vectors
from kintsugi.demo.stage import COLLECTION
from kintsugi.demo.traffic import wait_until
from kintsugi.ids import DocId
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.upgrade_types import DocumentToEmbed, NextDocuments, PutVectorsResult

_BATCHES_PER_S = 8
_LONGEST_PAUSE_S = 0.25


class _Stopped(Exception):
    """The block was left."""


@dataclass(frozen=True, slots=True)
class _Cluster:
    """The upgrade, by a client. What is acknowledged is found by every search that starts later."""

    client: Client
    stopping: threading.Event

    def pull(self, limit: int, lease_s: float, first: Sequence[DocId]) -> NextDocuments:
        if self.stopping.is_set():
            raise _Stopped
        return self.client.next_documents(COLLECTION, limit, lease_s=lease_s, first=list(first) or None)

    def put(
        self, ids: Sequence[DocId], versions: npt.NDArray[np.uint64], vectors: F32Matrix, request_id: str
    ) -> PutVectorsResult:
        name = embed.NEW_MODEL.name
        return self.client.put_vectors(
            COLLECTION, name, list(ids), versions, vectors, request_id=request_id, acknowledgement="searchable"
        )


@dataclass(frozen=True, slots=True)
class _Embedder:
    """Documents are embedded by their id and text."""

    function: Callable[[Sequence[str], Sequence[str]], Vectors]
    needs_text: bool = True

    def embed(self, documents: Sequence[DocumentToEmbed]) -> F32Matrix:
        ids, texts = [str(document.id) for document in documents], [document.text for document in documents]
        return matrix_of(self.function(ids, texts), len(documents), "the model")

    def close(self) -> None:
        """There is nothing to close."""


@dataclass(slots=True)
class Reembedding:
    """`async with Reembedding(...)`: the workers work until all is done or the block is left. `rate`: documents per second, of all
    workers together."""

    clients: Sequence[Client]
    function: Callable[[Sequence[str], Sequence[str]], Vectors]
    rate: float
    _workers: list[Worker] = field(default_factory=list)
    _running: list[asyncio.Task[Progress]] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    async def __aenter__(self) -> Self:
        rate = self.rate / len(self.clients)
        settings = WorkerSettings(batch=max(1, int(rate / _BATCHES_PER_S)), rate=rate)
        for client in self.clients:
            cluster = _Cluster(client, self._stopping)
            worker = Worker(cluster, embed.NEW_MODEL, _Embedder(self.function), settings, sleep=_sleep)
            self._workers.append(worker)
            self._running.append(asyncio.create_task(asyncio.to_thread(worker.run)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        ends = await asyncio.gather(*self._running, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, _Stopped) and kind is None:
                raise end

    @property
    def written(self) -> int:
        return sum(worker.progress.written for worker in self._workers)

    async def reach(self, written: int, patience_s: float) -> None:
        """Waits until so many documents are re-embedded, or nobody works any more, or that takes too long."""
        await wait_until(lambda: self.written >= written or all(worker.done() for worker in self._running), patience_s)


def _sleep(pause_s: float) -> None:
    """The pauses of a worker are long where embedding takes days."""
    time.sleep(min(pause_s, _LONGEST_PAUSE_S))
