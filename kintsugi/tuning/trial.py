"""One encoding, built and searched in this process as the shard servers of the collection would do it.

Every part has an index of its own; a search takes candidates from each of them and scores them exactly with the full
vectors. What a cluster adds, RPC, queues, storage, is left out on both sides of a throughput ratio.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from kintsugi.ann.encoded_index import EncodedIndex
from kintsugi.ann.encoding import Encoding
from kintsugi.ann.fitting import fit
from kintsugi.ann.footprint import index_bytes
from kintsugi.ann.scan_codes import ScanCodes
from kintsugi.ann.spec import EncodingSpec
from kintsugi.ann.vector_index import GraphParameters, VectorIndex
from kintsugi.tuning.ground import Ground, Places
from kintsugi.tuning.truth import F32Matrix, Scores, best_of

# What a shard server draws to fit an encoding.
_FIT_SAMPLE = 10_000
# Queries per call, as under load.
_BATCH = 16
_ADD_BLOCK = 2000

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes per vector. `code` is in memory, without the graph; `memory` all that a shard of the real size cannot do
    without; `mapped` codes in files that the kernel may drop from memory."""

    code: float
    memory: float
    mapped: float


class Trial:
    """`with Trial(ground, spec, folder) as trial`; build it first. `folder` takes its files."""

    def __init__(self, ground: Ground, spec: EncodingSpec, folder: Path, seed: int = 0) -> None:
        self.spec = spec
        self._ground = ground
        self._folder = folder
        self._seed = seed
        self._parts: list[EncodedIndex] = []
        self._parameters = GraphParameters()

    @property
    def oversampling(self) -> float:
        """The encoding's own."""
        return self._parts[0].oversampling

    def build(self, advance: Advance) -> float:
        """Fits, encodes and links everything. Returns the seconds; `advance` is called with the vectors done."""
        started = time.perf_counter()
        for number, places in enumerate(self._ground.parts):
            vectors = self._ground.vectors[places]
            index = self._assemble(number, vectors)
            self._parts.append(index)
            rows = np.arange(len(places), dtype=np.uint64)
            for start in range(0, len(places), _ADD_BLOCK):
                block = slice(start, start + _ADD_BLOCK)
                index.add(rows[block], vectors[block])
                advance(len(rows[block]))
        return time.perf_counter() - started

    def _assemble(self, number: int, vectors: F32Matrix) -> EncodedIndex:
        dimension = vectors.shape[1]
        chosen = np.random.default_rng(self._seed).permutation(len(vectors))[:_FIT_SAMPLE]
        total = self._ground.shard_vectors
        encoding = fit(self.spec, self._ground.metric, dimension, vectors[chosen], total, self._seed)
        scan = None if encoding.scan is None else self._scan_codes(number, encoding.scan)
        return EncodedIndex(VectorIndex(encoding, self._parameters), scan)

    def _scan_codes(self, number: int, encoding: Encoding) -> ScanCodes:
        return ScanCodes.create(self._folder / f"{self.spec.name}-{number}", encoding, 0)

    def sizes(self) -> Sizes:
        count = self._ground.shard_vectors
        code = self._parts[0].encoding.code_bytes
        return Sizes(
            code=code,
            memory=index_bytes(count, code, self._parameters.connectivity) / count,
            mapped=sum(part.mapped_bytes for part in self._parts) / len(self._ground.vectors),
        )

    def answers(self, queries: F32Matrix, oversampling: float | None = None) -> list[Scores]:
        """The exact scores of the k best that are found for each query."""
        k = self._ground.k
        found: list[list[Places]] = [[] for _ in queries]
        for places, index in zip(self._ground.parts, self._parts, strict=True):
            for answer, rows in zip(found, index.candidates(queries, k, oversampling), strict=True):
                answer.append(places[rows.astype(np.int64)])
        metric, vectors = self._ground.metric, self._ground.vectors
        return [
            best_of(metric, query, vectors, np.concatenate(answer), k)
            for query, answer in zip(queries, found, strict=True)
        ]

    def recalls(self, oversampling: float | None = None) -> Scores:
        """Of each query."""
        queries = self._ground.queries
        found = [
            answer
            for start in range(0, len(queries), _BATCH)
            for answer in self.answers(queries[start : start + _BATCH], oversampling)
        ]
        return self._ground.truth.recalls(found)

    def queries_per_s(self, seconds: float, oversampling: float | None = None) -> float:
        """Searches for about so long, and at least once through some queries."""
        queries = self._ground.queries
        first, answered, started = 0, 0, time.perf_counter()
        while not answered or time.perf_counter() < started + seconds:
            batch = queries[first : first + _BATCH]
            self.answers(batch, oversampling)
            answered += len(batch)
            first = (first + _BATCH) % len(queries)
        return answered / (time.perf_counter() - started)

    def close(self) -> None:
        """Frees memory and files."""
        for index in self._parts:
            index.close()
        self._parts = []
        for path in self._folder.glob(f"{self.spec.name}-*"):
            path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
