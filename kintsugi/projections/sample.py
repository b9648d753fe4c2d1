"""Documents and queries embedded by both models, and how they are divided: some to fit on, the others to judge by. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import FloatArray, Metric
from kintsugi.projections.measures import Ranking
from kintsugi.projections.projection import F32Matrix, prepared

MIN_PAIRS = 200
_JUDGED_PART = 0.2
_MOST_QUERIES = 1000

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PairedSample:
    """`old_documents` is n x s, `new_documents` n x t: the same documents in the same order. Queries likewise, or none of
    either model. `relevant`: for each query the places of its relevant documents, or nothing when nobody judged."""

    metric: Metric
    old_documents: FloatArray
    new_documents: FloatArray
    old_queries: FloatArray | None = None
    new_queries: FloatArray | None = None
    relevant: Sequence[frozenset[int]] = ()

    def __post_init__(self) -> None:
        _require_pairs("documents", self.old_documents, self.new_documents, MIN_PAIRS)
        if (self.old_queries is None) != (self.new_queries is None):
            raise ValueError("queries are given of one model only, must be of both or of none")
        if self.old_queries is not None and self.new_queries is not None:
            _require_pairs("queries", self.old_queries, self.new_queries, 1)
        queries = 0 if self.new_queries is None else len(self.new_queries)
        if self.relevant and len(self.relevant) != queries:
            raise ValueError(f"relevant has {len(self.relevant)} entries, must have one per query: {queries}")
        largest = max((place for places in self.relevant for place in places), default=0)
        if largest >= len(self.old_documents):
            raise ValueError(f"relevant names document {largest}, must be below {len(self.old_documents)}")


@dataclass(frozen=True, slots=True)
class Split:
    """A sample prepared for its metric and divided. Projections are fitted on `old_fit` and `new_fit`; `old` and `new` are the
    gallery that they are judged by, never fitted on. `own`: per query its own place in the gallery, None when queries are
    no documents. `relevant` points into the gallery."""

    metric: Metric
    old_fit: F32Matrix
    new_fit: F32Matrix
    old: F32Matrix
    new: F32Matrix
    old_queries: F32Matrix
    new_queries: F32Matrix
    own: Ranking | None
    relevant: tuple[frozenset[int], ...]

    @property
    def is_judged(self) -> bool:
        return bool(self.relevant)


def split(sample: PairedSample, seed: int = 0) -> Split:
    """Holds out a fifth of the documents, and all that a judgement names: a projection that has seen the relevant documents
    looks much better than it is. Without queries, held-out documents take their place."""
    random = np.random.default_rng(seed)
    held_out = random.random(len(sample.old_documents)) < _JUDGED_PART
    held_out[sorted(place for places in sample.relevant for place in places)] = True
    if len(held_out) - held_out.sum() < MIN_PAIRS // 2:
        raise ValueError(
            f"judgements name {int(held_out.sum())} of {len(held_out)} documents, at least {MIN_PAIRS // 2} others are "
            "needed to fit projections on"
        )
    gallery = np.flatnonzero(held_out)
    old, new = (prepared(sample.metric, vectors) for vectors in (sample.old_documents, sample.new_documents))
    old_queries, new_queries, own, relevant = _queries(sample, gallery, random)
    return Split(
        metric=sample.metric,
        old_fit=old[~held_out],
        new_fit=new[~held_out],
        old=old[gallery],
        new=new[gallery],
        old_queries=prepared(sample.metric, old_queries),
        new_queries=prepared(sample.metric, new_queries),
        own=own,
        relevant=relevant,
    )


def _queries(
    sample: PairedSample, gallery: Places, random: np.random.Generator
) -> tuple[FloatArray, FloatArray, Ranking | None, tuple[frozenset[int], ...]]:
    if sample.old_queries is None or sample.new_queries is None:
        own = np.sort(random.choice(len(gallery), min(_MOST_QUERIES, len(gallery)), replace=False))
        places = gallery[own]
        return sample.old_documents[places], sample.new_documents[places], own, ()
    if not sample.relevant:
        return sample.old_queries, sample.new_queries, None, ()
    asked = [query for query, places in enumerate(sample.relevant) if places]
    if not asked:
        raise ValueError("relevant names no document, must name one for at least one query")
    place_in_gallery = {int(place): at for at, place in enumerate(gallery)}
    relevant = tuple(frozenset(place_in_gallery[place] for place in sample.relevant[query]) for query in asked)
    return sample.old_queries[asked], sample.new_queries[asked], None, relevant


def _require_pairs(what: str, old: FloatArray, new: FloatArray, least: int) -> None:
    if len(old) != len(new):
        raise ValueError(f"{what} are {len(old)} of the old model and {len(new)} of the new, must be as many of both")
    if len(old) < least:
        raise ValueError(f"{what} are {len(old)}, must be at least {least}")
    for name, vectors in (("old", old), ("new", new)):
        if not np.isfinite(vectors).all():
            raise ValueError(f"{what} of the {name} model have elements that are not finite")
