"""What searches find while a mapped gallery is re-embedded in some order: quality seen by traffic, exactly enough.

A document that was re-embedded is scored by the new model's vector, any other by its mapped one, as they are. Of each query
only the documents that are among its best of either kind are kept: no other can come among its ten best before all of these
were re-embedded.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi.projections.measures import PerQuery, best_places, score_matrix, top
from kintsugi.projections.migration import K, Mask
from kintsugi.projections.projection import F32Matrix, Projection, prepared
from kintsugi.projections.sample import PairedSample, Places, split
from kintsugi.projections.uncertainty import Uncertainty, fit

# Of each query and each kind of vector.
_CONTENDERS = 500
_NOWHERE = np.float32(-1e9)


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """`contenders` holds the documents of each query's columns, `true` which of them are among its ten best of a full
    re-embedding. `unsure`: how little the predictor trusts the map of each document."""

    contenders: Places
    native: npt.NDArray[np.float32]
    mapped: npt.NDArray[np.float32]
    true: npt.NDArray[np.bool_]
    documents: int
    unsure: npt.NDArray[np.float64]

    @property
    def queries(self) -> int:
        return len(self.contenders)

    def ranked(self, queries: Places, migrated: Mask, depth: int) -> Places:
        """The columns of the best contenders of some queries, best first."""
        scores = np.where(migrated[self.contenders[queries]], self.native[queries], self.mapped[queries])
        return best_places(scores, depth)

    def quality(self, migrated: Mask) -> PerQuery:
        """The recall@10 of each query against full re-embedding."""
        queries = np.arange(self.queries)
        return np.asarray(np.take_along_axis(self.true, self.ranked(queries, migrated, K), 1).sum(axis=1) / K)


def prepare(sample: PairedSample, gallery_map: Projection, seed: int, *, held_out: bool) -> Ground:
    """Of all documents of a sample, or of those only that nothing was fitted on."""
    parts = split(sample, seed)
    old, new = parts.old, parts.new
    if not held_out:
        old, new = (prepared(sample.metric, side) for side in (sample.old_documents, sample.new_documents))
    predictor: Uncertainty = fit(gallery_map, parts.old_fit, parts.new_fit)
    mapped = gallery_map.apply(old)
    of_new, of_mapped = (top(parts.metric, parts.new_queries, side, _CONTENDERS) for side in (new, mapped))
    either = [np.union1d(*pair) for pair in zip(of_new, of_mapped, strict=True)]
    contenders = np.zeros((len(either), max(map(len, either))), dtype=np.intp)
    native = np.full(contenders.shape, _NOWHERE, dtype=np.float32)
    others = native.copy()
    for query, mine in enumerate(either):
        asked: F32Matrix = parts.new_queries[query : query + 1]
        contenders[query, : len(mine)] = mine
        native[query, : len(mine)] = score_matrix(parts.metric, asked, new[mine])[0]
        others[query, : len(mine)] = score_matrix(parts.metric, asked, mapped[mine])[0]
    true = np.zeros(contenders.shape, dtype=np.bool_)
    np.put_along_axis(true, best_places(native, K), values=True, axis=1)
    return Ground(contenders, native, others, true, len(new), predictor.of(old))
