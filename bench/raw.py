"""The limit: usearch in the process that asks, with nothing around it.

One process per shard holds that shard's partition, encoded, indexed, searched and rescored as a shard server does it:
the same calibrated int8 codes, graph parameters, candidates per hit, and exact float64 scores from float32 vectors.
What is left out is what a cluster adds: RPC, queues, storage, ids, merging.

A query is answered when all partitions have answered it. So the partitions get the same calls in the same order at the
same time, the latency of a call is that of the slower one, and the throughput that of the slowest process. Merging for
the recall is not timed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from bench.child import Child
from bench.datasets import Dataset, F32Matrix
from bench.processes import CpuMeter, Memory, core_of, memory, pin
from bench.recorder import Load
from bench.statistics import NO_HIT, NOT_ASKED, IdMatrix, merge_top_k
from kintsugi import ids
from kintsugi.ann.encoding import Encoding, f32
from kintsugi.ann.fitting import fit
from kintsugi.ann.spec import EncodingKind, EncodingSpec
from kintsugi.ann.vector_index import GraphParameters
from kintsugi.metrics import Metric, scores
from shard.rebuild_policy import RebuildSettings

T = TypeVar("T")
F64Matrix = npt.NDArray[np.float64]

_SAMPLE = 10_000
_ADD_BLOCK = 10_000
# Until all processes have heard of their start.
_START_DELAY_S = 0.05


@dataclass(frozen=True, slots=True)
class PartitionLoad:
    """What one partition did in a window: its best hits per query of the set, with scores to merge by."""

    calls: int
    seconds: float
    cpu_s: float
    latencies_ms: npt.NDArray[np.float64]
    found: IdMatrix
    scores: F64Matrix


class Partition:
    """Lives in a process of its own, pinned like the shard server of the same number."""

    def __init__(self, vectors_path: str, queries_path: str, rows: IdMatrix, metric: str, k: int) -> None:
        self._ids = rows
        self._vectors: F32Matrix = np.load(vectors_path, mmap_mode="r")[rows]
        self._queries: F32Matrix = np.load(queries_path)
        self._metric = Metric(metric)
        self._k = k

    def build(self) -> float:
        """Seconds to calibrate, encode and add everything."""
        started = time.perf_counter()
        self._encoding = self._choose_encoding()
        parameters = GraphParameters()
        self._scan = len(self._ids) < parameters.exact_below
        self._index = Index(
            ndim=self._vectors.shape[1],
            metric=self._encoding.usearch_metric,
            dtype=self._encoding.usearch_dtype,
            connectivity=parameters.links(self._encoding.code_bytes),
            expansion_add=parameters.expansion_add,
            expansion_search=parameters.expansion_search,
        )
        for start in range(0, len(self._ids), _ADD_BLOCK):
            block = self._vectors[start : start + _ADD_BLOCK]
            keys = np.arange(start, start + len(block), dtype=np.uint64)
            self._index.add(keys, self._encoding.encode(block), threads=1)
        return time.perf_counter() - started

    def _choose_encoding(self) -> Encoding:
        count, dimension = self._vectors.shape
        if count < RebuildSettings().calibrate_at:
            return f32(self._metric, dimension)
        chosen = np.random.default_rng(0).permutation(count)[:_SAMPLE]
        return fit(EncodingSpec(EncodingKind.I8), self._metric, dimension, self._vectors[chosen], count)

    def run(self, batch: int, start_at: float, warmup_s: float, seconds: float) -> PartitionLoad:
        """Searches, `batch` queries per call, from a moment of the monotonic clock on."""
        found = np.full((len(self._queries), self._k), NOT_ASKED, dtype=np.int64)
        values = np.full(found.shape, -np.inf)
        time.sleep(max(0.0, start_at - time.monotonic()))
        self._search_until(start_at + warmup_s, batch, found, values)
        found[:] = NOT_ASKED
        cpu_before = time.process_time()
        started = time.monotonic()
        latencies = self._search_until(started + seconds, batch, found, values)
        return PartitionLoad(
            calls=len(latencies),
            seconds=time.monotonic() - started,
            cpu_s=time.process_time() - cpu_before,
            latencies_ms=np.array(latencies, dtype=np.float64) / 1e6,
            found=found,
            scores=values,
        )

    def _search_until(self, end: float, batch: int, found: IdMatrix, values: F64Matrix) -> list[int]:
        latencies: list[int] = []
        first = 0
        while time.monotonic() < end:
            asked = np.arange(first, first + batch) % len(self._queries)
            first = (first + batch) % len(self._queries)
            started = time.perf_counter_ns()
            for query, (hits, exact) in zip(asked, self._search(self._queries[asked]), strict=True):
                found[query], values[query] = NO_HIT, -np.inf
                found[query, : len(hits)], values[query, : len(hits)] = hits, exact
            latencies.append(time.perf_counter_ns() - started)
        return latencies

    def _search(self, queries: F32Matrix) -> list[tuple[IdMatrix, npt.NDArray[np.float64]]]:
        count = min(int(np.ceil(self._k * self._encoding.oversampling)), len(self._ids))
        matches = self._index.search(self._encoding.encode_queries(queries), count, threads=1, exact=self._scan)
        # One query comes back as a flat list.
        keys = matches.keys.reshape(len(queries), -1)
        return [self._rescore(query, candidates) for query, candidates in zip(queries, keys, strict=True)]

    def _rescore(self, query: F32Matrix, keys: npt.NDArray[np.uint64]) -> tuple[IdMatrix, npt.NDArray[np.float64]]:
        exact = scores(self._metric, query, self._vectors[keys])
        best = np.argsort(-exact)[: self._k]
        return self._ids[keys[best]], exact[best]


class RawEngine:
    """All partitions of a dataset. `pinned` as the shard servers are."""

    def __init__(self, dataset: Dataset, shards: int, k: int, *, pinned: bool) -> None:
        self._k = k
        count = len(dataset.vectors)
        owner = np.fromiter((ids.shard_of(row, shards) for row in range(count)), np.int64, count)
        self._partitions: list[Child[Partition]] = []
        for shard in range(shards):
            rows = np.flatnonzero(owner == shard)
            paths = str(dataset.vectors_path), str(dataset.queries_path)
            child = Child(Partition, *paths, rows, dataset.metric.value, k)
            if pinned:
                pin(child.pid, core_of(shard))
            self._partitions.append(child)

    def build(self) -> float:
        """Seconds until the last partition is indexed; all are at once."""
        return float(max(self._all(Partition.build)))

    def run(self, batch: int, warmup_s: float, seconds: float) -> Load:
        meter = CpuMeter({f"raw-{number}": child.pid for number, child in enumerate(self._partitions)})
        begun = time.monotonic()
        parts = self._all(Partition.run, batch, begun + _START_DELAY_S, warmup_s, seconds)
        return combined(parts, batch, self._k, meter.seconds_elsewhere() / (time.monotonic() - begun))

    def memory(self) -> dict[str, Memory]:
        return {f"raw-{number}": memory(child.pid) for number, child in enumerate(self._partitions)}

    def close(self) -> None:
        for child in self._partitions:
            child.close()

    def _all(self, method: Callable[..., T], *args: object) -> list[T]:
        for child in self._partitions:
            child.start(method, *args)
        return [child.result() for child in self._partitions]


def combined(parts: Sequence[PartitionLoad], batch: int, k: int, cores_elsewhere: float) -> Load:
    """What all partitions together did: as fast as the slowest of them, call by call and in total."""
    slowest = min(parts, key=lambda part: part.calls / part.seconds)
    calls = min(part.calls for part in parts)
    return Load(
        seconds=slowest.seconds,
        queries=slowest.calls * batch,
        latencies_ms=np.max([part.latencies_ms[:calls] for part in parts], axis=0),
        found=merge_top_k([part.found for part in parts], [part.scores for part in parts], k),
        errors={},
        # Per query of each part: the faster ones did more of them.
        cpu_s={f"raw-{n}": part.cpu_s * slowest.calls / max(1, part.calls) for n, part in enumerate(parts)},
        cores_elsewhere=cores_elsewhere,
    )
