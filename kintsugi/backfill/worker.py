"""The loop of a backfill: pull documents, embed them, put their vectors back, until none lacks one.

Guarantees:
1. Nothing is remembered between runs: what was pulled and not put back comes again when its lease is over. Any number of
   workers may run at once, each ends when nothing is left, also for the others, as every shard says.
2. A vector is put back with the version that was embedded: the cluster drops what came too late, and hands the document out
   anew.
3. Vectors of one model only: when the cluster wants those of another one, because the upgrade was rolled back, the worker
   stops instead of mixing them.
4. Not more than `rate` documents a second are embedded, over the whole run. What fails and may work later is tried again,
   `attempts` times in all, with growing pauses.

Knows neither RPC nor how documents are embedded.
"""

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from kintsugi.backfill.embedder import Embedder, EmbedRefused, F32Matrix
from kintsugi.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, Unavailable
from kintsugi.ids import DocId
from kintsugi.sdk.types import Model
from kintsugi.sdk.upgrade_types import DocumentToEmbed, NextDocuments, PutVectorsResult

T = TypeVar("T")

PAUSED = "UPGRADE_PAUSED"

# How long the worker waits before it asks again: while the upgrade is paused, or others hold what is left.
ASK_AGAIN_S = 2.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_AGAIN = (Unavailable, ResourceExhausted, DeadlineExceeded)


class Cluster(Protocol):
    """What the worker needs of one upgrade."""

    def pull(self, limit: int, lease_s: float, first: Sequence[DocId]) -> NextDocuments: ...

    def put(
        self, ids: Sequence[DocId], versions: npt.NDArray[np.uint64], vectors: F32Matrix, request_id: str
    ) -> PutVectorsResult: ...


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """`batch` documents are embedded at once; raise it for embedders that are slow to call. `rate`: documents per second, 0 for
    any. `lease_s`: about the longest time that a batch may take, retries included. `first`: embedded before all others."""

    batch: int = 100
    rate: float = 0.0
    lease_s: float = 120.0
    attempts: int = 5
    first: tuple[DocId, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the run is. `remaining`: the documents that lacked a vector when last asked, `waiting`: why nothing happens."""

    written: int = 0
    stale: int = 0
    missing: int = 0
    retries: int = 0
    textless: int = 0
    remaining: int = 0
    waiting: str = ""

    def after(self, put: PutVectorsResult) -> "Progress":
        return replace(
            self,
            written=self.written + put.written,
            stale=self.stale + put.stale,
            missing=self.missing + put.missing,
            remaining=max(0, self.remaining - put.written - put.missing),
        )


class Worker:
    """One run. `show` is told whenever something has changed. Not for two threads."""

    def __init__(
        self,
        cluster: Cluster,
        model: Model,
        embedder: Embedder,
        settings: WorkerSettings,
        show: Callable[[Progress], None] = lambda _progress: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cluster = cluster
        self._model = model
        self._embedder = embedder
        self._settings = settings
        self._show = show
        self._clock = clock
        self._sleep = sleep
        self._first = deque(settings.first)
        # Documents that the embedder can do nothing with.
        self._textless: set[DocId] = set()
        self._next_at = clock()
        self.progress = Progress()

    def run(self) -> Progress:
        """Returns when every document has a vector, but for those without a text. Raises what cannot be overcome."""
        while True:
            pulled = self._pull()
            if pulled is None:
                continue
            able = self._able(pulled.documents)
            self._tell(remaining=pulled.remaining, textless=len(self._textless), waiting="")
            if able:
                self._serve(able)
            elif not pulled.is_complete:
                self._wait(f"{pulled.shards_answered} of {pulled.shards_total} shards answer")
            elif pulled.remaining <= len(self._textless):
                return self.progress
            elif not pulled.documents:
                # A replica that lags behind counts what was just put: it is not known to be the end yet.
                self._wait("others embed the rest, or a replica has yet to apply it")

    def _pull(self) -> NextDocuments | None:
        """None while the upgrade is paused."""
        limit = self._settings.batch
        if self._settings.rate:
            # What is pulled must be embedded within its lease.
            limit = max(1, min(limit, int(self._settings.rate * self._settings.lease_s / 2)))
        first = [self._first.popleft() for _ in range(min(limit, len(self._first)))]
        try:
            pulled = self._retried(lambda: self._cluster.pull(limit, self._settings.lease_s, first))
        except FailedPrecondition as error:
            if error.reason != PAUSED:
                raise
            self._first.extendleft(reversed(first))
            self._wait("the upgrade is paused")
            return None
        if pulled.model != self._model.name:
            raise FailedPrecondition(
                f"the upgrade asks for vectors of {pulled.model} now, this worker makes those of {self._model.name}",
                reason="OTHER_MODEL_WANTED",
            )
        return pulled

    def _able(self, documents: Sequence[DocumentToEmbed]) -> list[DocumentToEmbed]:
        """The documents that the embedder can embed, with what the model wants before each text."""
        prefix = self._model.document_prefix
        able = []
        for document in documents:
            if document.text:
                able.append(replace(document, text=prefix + document.text))
            elif self._embedder.needs_text:
                self._textless.add(document.id)
            else:
                able.append(document)
        return able

    def _serve(self, documents: list[DocumentToEmbed]) -> None:
        self._keep_rate(len(documents))
        vectors = self._retried(lambda: self._embedder.embed(documents))
        if vectors.shape[1] != self._model.dimension:
            raise EmbedRefused(
                f"vectors have {vectors.shape[1]} elements, model {self._model.name} has {self._model.dimension}"
            )
        ids = [document.id for document in documents]
        versions = np.array([document.version for document in documents], dtype=np.uint64)
        request_id = uuid.uuid4().hex
        put = self._retried(lambda: self._cluster.put(ids, versions, vectors, request_id))
        self.progress = self.progress.after(put)
        self._show(self.progress)

    def _keep_rate(self, documents: int) -> None:
        if not self._settings.rate:
            return
        now = self._clock()
        if self._next_at > now:
            self._sleep(self._next_at - now)
        self._next_at = max(self._next_at, now) + documents / self._settings.rate

    def _retried(self, work: Callable[[], T]) -> T:
        pause_s = _FIRST_PAUSE_S
        for _ in range(self._settings.attempts - 1):
            try:
                return work()
            except _AGAIN as error:
                self._tell(retries=self.progress.retries + 1, waiting=error.message)
                self._sleep(max(pause_s, error.retry_delay_s or 0.0))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return work()

    def _wait(self, why: str) -> None:
        self._tell(waiting=why)
        self._sleep(ASK_AGAIN_S)

    def _tell(self, **changes: int | str) -> None:
        self.progress = replace(self.progress, **changes)  # type: ignore[arg-type]  # the fields are ints and one str
        self._show(self.progress)
