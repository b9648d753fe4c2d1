"""Plays an upgrade on held-out documents: what searches of the new model find while a growing part is re-embedded. Pure.

A document that was re-embedded is scored by the new model's own vectors, any other by another space: the old model's with
old or bridged queries, or that of mapped vectors. The anchors of both spaces bring the scores of the second to the scale
of the first. Searches are exact: this tells what merging scores does, and nothing of indexes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi.projections.anchors import Anchors
from kintsugi.projections.calibration import Calibration, Scores, calibrate
from kintsugi.projections.measures import PerQuery, Ranking, best_places, ndcg, recall, score_matrix, top
from kintsugi.projections.projection import F32Matrix, Projection
from kintsugi.projections.sample import Places, Split
from kintsugi.projections.strategy import Strategy

K = 10
# Of the documents, re-embedded: where curves are measured.
FRACTIONS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

_BLOCK = 128

Mask = npt.NDArray[np.bool_]
# Of the new model's scores, those of the other space, and which documents were re-embedded, the scores that rank all.
Merge = Callable[[Scores, Scores, Mask], Scores]


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Where scores come from: queries, documents and anchors, in the places of the sample's."""

    queries: F32Matrix
    documents: F32Matrix
    anchors: F32Matrix


@dataclass(frozen=True, slots=True)
class Quality:
    """Of each query, at one point of the upgrade. `recall` against the new model's own neighbours, `ndcg` None when not
    judged."""

    recall: PerQuery
    ndcg: PerQuery | None

    @property
    def deciding(self) -> PerQuery:
        return self.recall if self.ndcg is None else self.ndcg


def replaced(native: Scores, other: Scores, migrated: Mask) -> Scores:
    """Each document by the scores that it has."""
    return np.where(migrated, native, other)


def spaces(
    parts: Split, anchors: Anchors, bridge: Projection | None, gallery_map: Projection | None
) -> dict[Strategy, Space]:
    """Where the scores of documents that were not re-embedded come from, by strategy."""
    found = {Strategy.BOTH: Space(parts.old_queries, parts.old, anchors.old)}
    if bridge is not None:
        found[Strategy.BRIDGE] = Space(bridge.apply(parts.new_queries), parts.old, anchors.old)
    if gallery_map is not None:
        found[Strategy.MAP] = Space(parts.new_queries, gallery_map.apply(parts.old), gallery_map.apply(anchors.old))
    return found


class Migration:
    """The held-out part of a sample, re-embedded in an order drawn by chance unless one is given."""

    def __init__(self, parts: Split, anchors: Anchors, seed: int, order: Places | None = None) -> None:
        self._parts = parts
        self._order = np.random.default_rng(seed).permutation(len(parts.old)) if order is None else order
        self._native = Space(parts.new_queries, parts.new, anchors.new)
        self._truth = top(parts.metric, parts.new_queries, parts.new, K, parts.own)

    def qualities(
        self, space: Space, how: Calibration, fractions: Sequence[float], merge: Merge = replaced
    ) -> list[Quality]:
        """What searches find when so many documents were re-embedded and the others are scored in `space`."""
        masks = [self._migrated(fraction) for fraction in fractions]
        found = [np.empty_like(self._truth) for _ in masks]
        for block, native, other in self._scored(space, how):
            for mask, mine in zip(masks, found, strict=True):
                mine[block] = best_places(self._without_own(merge(native, other, mask), block), K)
        return [self._quality(mine) for mine in found]

    def _scored(self, space: Space, how: Calibration) -> Iterator[tuple[slice, Scores, Scores]]:
        """Blocks of queries, with the scores of all documents by the new model and, calibrated, in the space."""
        for start in range(0, len(self._truth), _BLOCK):
            block = slice(start, start + _BLOCK)
            native, native_anchors = self._scores(self._native, block)
            values, anchors = self._scores(space, block)
            rows = zip(anchors, native_anchors, values, strict=True)
            yield block, native, np.stack([calibrate(how, other, true, scores) for other, true, scores in rows])

    def _scores(self, space: Space, block: slice) -> tuple[Scores, Scores]:
        metric, queries = self._parts.metric, space.queries[block]
        documents, anchors = (score_matrix(metric, queries, side) for side in (space.documents, space.anchors))
        return documents.astype(np.float64), anchors.astype(np.float64)

    def _without_own(self, scores: Scores, block: slice) -> Scores:
        """A query that is a document does not find itself."""
        if self._parts.own is not None:
            own = self._parts.own[block]
            scores[np.arange(len(own)), own] = -np.inf
        return scores

    def _migrated(self, fraction: float) -> Mask:
        migrated = np.zeros(len(self._order), dtype=np.bool_)
        migrated[self._order[: round(fraction * len(self._order))]] = True
        return migrated

    def _quality(self, found: Ranking) -> Quality:
        judged = ndcg(found, self._parts.relevant) if self._parts.is_judged else None
        return Quality(recall(found, self._truth), judged)
