"""Judges searches of the new model against full re-embedding, computed by numpy over all its vectors. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi.demo.answers import K
from kintsugi.demo.embed import Vectors
from kintsugi.ids import DocId
from kintsugi.sdk.types import BatchResult

# Equal scores may be found in either order.
_TOLERANCE = 1e-5
# What chance may take from one step to the next.
_NOISE = 0.02
MIN_AT_THE_END = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class FullReembedding:
    """The scores of all documents for the probes, by their own vectors of the new model."""

    places: dict[DocId, int]
    scores: npt.NDArray[np.float32]

    @classmethod
    def of(cls, ids: Sequence[DocId], vectors: Vectors, probes: Vectors) -> "FullReembedding":
        return cls({doc_id: place for place, doc_id in enumerate(ids)}, probes @ vectors.T)

    def recall(self, found: BatchResult) -> float:
        rows = [[self.places[hit.id] for hit in found.hits(n) if hit.id in self.places] for n in range(len(found.ids))]
        return self._recall(rows)

    def recall_of(self, old_vectors: Vectors, old_probes: Vectors) -> float:
        """What the old model's own best K would find of it, among the first documents."""
        best = np.argsort(-(old_probes @ old_vectors.T), axis=1, kind="stable")[:, :K]
        return self._recall(best.tolist())

    def _recall(self, rows: Sequence[Sequence[int]]) -> float:
        worst_right = np.partition(self.scores, -K, axis=1)[:, -K] - _TOLERANCE
        right = [
            min(int(np.sum(scores[places] >= least)), K)
            for scores, places, least in zip(self.scores, map(list, rows), worst_right, strict=True)
        ]
        return float(np.mean(right)) / K


@dataclass(frozen=True, slots=True)
class Point:
    """What clients of the new model find when this part of the documents is re-embedded. `own`: the part of their hits that has
    a vector of the new model."""

    fraction: float
    recall: float
    own: float


def keeps_its_promise(curve: Sequence[Point], old_alone: float) -> bool:
    """Whether no point is below the old model alone, nor below the point before, beyond chance."""
    so_far = [old_alone, *(point.recall for point in curve)]
    return all(point.recall >= max(old_alone, before) - _NOISE for before, point in zip(so_far, curve, strict=False))
