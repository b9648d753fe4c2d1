"""Scores candidates: by the vectors of one model, or across the two models of an upgrade.

Guarantees: a document that has a vector of the searched model is scored by it, exactly; the others by projected vectors or by
calibrated scores, and are told apart. All in the state of the documents that is given. Does not know where candidates come from.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kintsugi.ann.vector_index import Rows
from kintsugi.metrics import FloatArray
from shard.checkpoint import IndexedModel
from shard.mixed_search import Scale, ScaleOfQueries, Spaces, merged
from shard.rescore import Scored, rescore, rescore_in_order
from shard.source import DocumentsSnapshot

Mask = npt.NDArray[np.bool_]

NO_FLAGS: Mask = np.empty(0, dtype=np.bool_)
# Queries whose scales are kept: groups are searched for query by query, again and again.
_KEPT_SCALES = 256


class Scorer(Protocol):
    """How candidates become scored rows."""

    def score(
        self, snapshot: DocumentsSnapshot, queries: FloatArray, candidates: Sequence[Rows], k: int, *, in_order: bool
    ) -> list[Scored]:
        """The best k of each query's candidates, and all that score as the k-th; best first. `in_order`: candidates come in the
        order of their supposed scores, and need not all be scored."""
        ...

    def flags(self, snapshot: DocumentsSnapshot, rows: Rows) -> Mask:
        """Which of some rows lack a vector of the searched model. Empty when that is not asked: outside of upgrades."""
        ...


class PlainScorer:
    """By the vectors of one model."""

    def __init__(self, model: IndexedModel) -> None:
        self._model = model

    def score(
        self, snapshot: DocumentsSnapshot, queries: FloatArray, candidates: Sequence[Rows], k: int, *, in_order: bool
    ) -> list[Scored]:
        scoring = rescore_in_order if in_order else rescore
        return scoring(snapshot, self._model.number, self._model.metric, queries, candidates, k)

    def flags(self, _snapshot: DocumentsSnapshot, _rows: Rows) -> Mask:
        return NO_FLAGS


class FlaggedScorer(PlainScorer):
    """By the vectors of one model, some of which are projected and as good as its own."""

    def flags(self, snapshot: DocumentsSnapshot, rows: Rows) -> Mask:
        return ~snapshot.rows_with(self._model.number).contains(rows)


class CrossScorer(FlaggedScorer):
    """By the vectors of the searched model where there are any, else by those of `other`, calibrated. Queries come joined."""

    def __init__(self, model: IndexedModel, other: IndexedModel, spaces: Spaces, scale: Scale) -> None:
        super().__init__(model)
        self._other = PlainScorer(other)
        self._spaces = spaces
        self._scale = scale
        self._scales: dict[bytes, ScaleOfQueries] = {}

    def score(
        self, snapshot: DocumentsSnapshot, queries: FloatArray, candidates: Sequence[Rows], k: int, *, in_order: bool
    ) -> list[Scored]:
        native = snapshot.rows_with(self._model.number)
        masks = [native.contains(rows) for rows in candidates]
        mine = [rows[mask] for rows, mask in zip(candidates, masks, strict=True)]
        theirs = [rows[~mask] for rows, mask in zip(candidates, masks, strict=True)]
        own, other = self._spaces.own(queries), self._spaces.other(queries)
        best = super().score(snapshot, own, mine, k, in_order=in_order)
        if not any(map(len, theirs)):
            return best
        found = self._other.score(snapshot, other, theirs, k, in_order=in_order)
        scale = self._scale_of(queries, own, other)
        return merged(best, [scale.calibrated(place, one) for place, one in enumerate(found)], k)

    def _scale_of(self, joined: FloatArray, own: FloatArray, other: FloatArray) -> ScaleOfQueries:
        key = joined.tobytes()
        scale = self._scales.get(key)
        if scale is None:
            if len(self._scales) >= _KEPT_SCALES:
                self._scales.clear()
            scale = self._scales[key] = self._scale.of(own, other)
        return scale
