"""Judges answers: against numpy, against each other, and against what exact search gave. Pure."""

from collections.abc import Sequence

import numpy as np

from kintsugi.demo.material import Material
from kintsugi.ids import DocId
from kintsugi.sdk.types import BatchResult, SearchResult

K = 10
MIN_RECALL = 0.99
_TOLERANCE = 1e-5


def agrees_with_numpy(material: Material, exact: BatchResult) -> bool:
    """Whether the answers are the best of all documents, allowing either order where scores are equal."""
    scores = material.question_vectors.astype(np.float64) @ material.vectors.astype(np.float64).T
    best = -np.sort(-scores, axis=1)[:, :K]
    place = {doc_id: i for i, doc_id in enumerate(material.ids)}
    if exact.ids.shape != best.shape or any(doc_id not in place for row in exact.ids for doc_id in row):
        return False
    theirs = np.array([[scores[q, place[doc_id]] for doc_id in ids] for q, ids in enumerate(exact.ids)])
    return bool(np.allclose(exact.scores, best, atol=_TOLERANCE) and np.allclose(theirs, best, atol=_TOLERANCE))


def recall(exact: BatchResult, indexed: BatchResult) -> float:
    """The mean share of the exact answers that the index found."""
    found = [share_of(wanted, got) for wanted, got in zip(exact.ids, indexed.ids, strict=True)]
    return float(np.mean(found))


def share_of(wanted: Sequence[DocId], got: Sequence[DocId]) -> float:
    return len(set(wanted) & set(got)) / len(wanted)


def are_the_same(before: BatchResult, after: BatchResult) -> bool:
    """Whether two exact searches gave the same ids in the same order with the same scores."""
    return np.array_equal(before.ids, after.ids) and np.allclose(before.scores, after.scores, rtol=1e-6, atol=0)


def is_complete(found: SearchResult, documents: int) -> bool:
    """Whether every shard answered, and for every document."""
    return found.coverage.complete and found.coverage.documents_covered == documents
