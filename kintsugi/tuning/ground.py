"""What all encodings are measured on: vectors, split as shards split them, held-out queries, and the exact answers. Pure.

A collection is searched shard by shard, each giving its own candidates, so an index over everything would find less. The
whole collection is split by its ids. A sample is split into as many parts as make each about as large as a shard is, and
into one when it is smaller than that: the recall of the real shards is then extrapolated from parts that are `growth`
times smaller.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi import ids
from kintsugi.metrics import Metric
from kintsugi.tuning.sampling import F32Matrix, Sample
from kintsugi.tuning.truth import Truth, exact_top_k

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ground:
    """`parts`: the places in `vectors` of each shard's documents. `shard_vectors`: how many a real shard holds."""

    metric: Metric
    vectors: F32Matrix
    queries: F32Matrix
    truth: Truth
    parts: tuple[Places, ...]
    shard_vectors: int

    @property
    def k(self) -> int:
        return int(self.truth.scores.shape[1])

    @property
    def part_vectors(self) -> int:
        return max(1, len(self.vectors) // len(self.parts))

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to extrapolate."""
        return self.shard_vectors <= self.part_vectors

    def reduced(self, share: float) -> "Ground":
        """The same with a random part of the vectors only; the sample is in random order."""
        parts = tuple(part[: max(1, round(len(part) * share))] for part in self.parts)
        kept = np.sort(np.concatenate(parts))
        vectors = self.vectors[kept]
        truth = exact_top_k(self.metric, vectors, self.queries, self.k)
        places = tuple(np.searchsorted(kept, part) for part in parts)
        return Ground(self.metric, vectors, self.queries, truth, places, self.shard_vectors)


def held_out(sample: Sample, queries: int) -> tuple[Sample, F32Matrix]:
    """The sample without some of its documents, and their vectors as queries."""
    count = max(1, min(queries, len(sample.ids) // 5))
    rest = Sample(sample.ids[count:], sample.vectors[count:], sample.collection_vectors - count)
    return rest, sample.vectors[:count]


def prepare(sample: Sample, queries: F32Matrix, *, metric: Metric, shards: int, k: int) -> Ground:
    """Raises ValueError when there are too few vectors to say anything."""
    count = len(sample.ids)
    if count <= k:
        raise ValueError(f"the sample has {count} vectors beside the queries, must have more than k = {k}")
    shard_vectors = -(-sample.collection_vectors // shards)
    if sample.is_whole:
        owners = np.fromiter((ids.shard_of(doc_id, shards) for doc_id in sample.ids), np.int64, count)
        parts = tuple(places for shard in range(shards) if len(places := np.flatnonzero(owners == shard)))
        shard_vectors = count // len(parts)
    else:
        parts = tuple(np.array_split(np.arange(count), max(1, round(count / shard_vectors))))
    truth = exact_top_k(metric, sample.vectors, queries, k)
    return Ground(metric, sample.vectors, queries, truth, parts, shard_vectors)
