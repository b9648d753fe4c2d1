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
from kintsugi.ann.fitting import fit
from kintsugi.ann.footprint import index_bytes
from kintsugi.ann.settling import first_scored, is_unsettled
from kintsugi.ann.spec import EncodingSpec
from kintsugi.ann.vector_index import GraphParameters
from kintsugi.metrics import scores
from kintsugi.tuning.ground import Ground, Places
from kintsugi.tuning.truth import F32Matrix, Scores, best

# What a shard server draws to fit an encoding.
FIT_SAMPLE = 10_000
# Queries per call, as under load.
_BATCH = 16
_ADD_BLOCK = 2000

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes per vector. `code` is in memory, without the graph, and `extra` the part of it that is outside of the graph;
    `memory` is all that a shard of the real size cannot do without; `mapped` codes in files that the kernel may drop."""

    code: float
    extra: float
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

    @property
    def breadth(self) -> int:
        """How many candidates a search of the graph looks at, however few it is asked for."""
        return max(part.breadth.value for part in self._parts)

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
        seconds = time.perf_counter() - started
        self._learn_breadth()
        return seconds

    def _learn_breadth(self) -> None:
        """As the recall of live searches would teach it, in time."""
        before = 0
        while self.breadth != before:
            before, recalls = self.breadth, self.recalls(self.oversampling)
            for part in self._parts:
                part.breadth.note(float(recalls.mean()), len(recalls) * self._ground.k)

    def _assemble(self, number: int, vectors: F32Matrix) -> EncodedIndex:
        dimension = vectors.shape[1]
        chosen = np.random.default_rng(self._seed).permutation(len(vectors))[:FIT_SAMPLE]
        total = self._ground.shard_vectors
        encoding = fit(self.spec, self._ground.metric, dimension, vectors[chosen], total, self._seed)
        return EncodedIndex.create(encoding, self._parameters, self._folder / f"{self.spec.name}-{number}", 0)

    def sizes(self) -> Sizes:
        count = self._ground.shard_vectors
        encoding = self._parts[0].encoding
        code = encoding.code_bytes
        return Sizes(
            code=code,
            extra=encoding.extra_bytes,
            memory=index_bytes(count, code, self._parameters.links(code - encoding.extra_bytes)) / count,
            mapped=sum(part.mapped_bytes for part in self._parts) / len(self._ground.vectors),
        )

    def answers(self, queries: F32Matrix, oversampling: float, *, in_order: bool = True) -> list[Scores]:
        """The exact scores of the k best that are found for each query. `in_order`: as a search that names no
        oversampling is answered by a collection that has this one: at least as many candidates as the graph looks at
        anyway, and as many of them scored as their order calls for. Else as one that names it: all are scored."""
        k, score = self._ground.k, self._score_in_order if in_order else self._score
        found: list[list[Scores]] = [[] for _ in queries]
        for places, index in zip(self._ground.parts, self._parts, strict=True):
            count = index.wanted(k, oversampling)
            if in_order:
                count = max(count, index.breadth.value)
            candidates = index.candidates(queries, k, oversampling, count=count)
            for query, answer, rows in zip(queries, found, candidates, strict=True):
                answer.append(score(query, places[rows.astype(np.int64)]))
        return [best(np.concatenate(answer), k) for answer in found]

    def _score(self, query: F32Matrix, candidates: Places) -> Scores:
        return scores(self._ground.metric, query, self._ground.vectors[candidates])

    def _score_in_order(self, query: F32Matrix, candidates: Places) -> Scores:
        """As many as their order calls for."""
        k = self._ground.k
        end = first_scored(k)
        scored = self._score(query, candidates[:end])
        while end < len(candidates) and is_unsettled(scored, k):
            scored = np.concatenate([scored, self._score(query, candidates[end : 2 * end])])
            end *= 2
        return scored

    def recalls(self, oversampling: float, *, in_order: bool = True) -> Scores:
        """Of each query."""
        queries = self._ground.queries
        found = [
            answer
            for start in range(0, len(queries), _BATCH)
            for answer in self.answers(queries[start : start + _BATCH], oversampling, in_order=in_order)
        ]
        return self._ground.truth.recalls(found)

    def queries_per_s(self, seconds: float, oversampling: float) -> float:
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
