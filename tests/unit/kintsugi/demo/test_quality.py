"""How the demo judges what clients of the new model find."""

import numpy as np
import pytest

from kintsugi.demo.answers import K
from kintsugi.demo.quality import FullReembedding, Point, keeps_its_promise
from kintsugi.sdk.types import BatchResult, Coverage

IDS = [f"d{n}" for n in range(30)]
# Document n has the score -n for the only probe.
VECTORS = -np.arange(30, dtype=np.float32)[:, np.newaxis]
PROBES = np.ones((1, 1), dtype=np.float32)


def found(ids):
    row = np.array([ids], dtype=object)
    shape = row.shape
    coverage = Coverage(1, 1, 30, 30)
    return BatchResult(np.array([len(ids)]), row, np.zeros(shape), np.zeros(shape, np.uint64), "new", coverage)


@pytest.mark.parametrize(
    ("ids", "recall"),
    [(IDS[:K], 1.0), (IDS[:K][::-1], 1.0), (IDS[5 : K + 5], 0.5), (["unknown", *IDS[1:K]], 0.9), (IDS[K:], 0.0)],
)
def test_recall_is_the_share_of_what_full_reembedding_finds(ids, recall):
    """The order is not judged, and unknown documents are wrong."""
    assert FullReembedding.of(IDS, VECTORS, PROBES).recall(found(ids)) == pytest.approx(recall)


def test_documents_with_equal_scores_stand_for_each_other():
    """Copies of a document are as good as the document."""
    vectors = np.concatenate([VECTORS[:K], VECTORS[K - 1 : K]])
    truth = FullReembedding.of([*IDS[:K], "copy"], vectors, PROBES)
    assert truth.recall(found([*IDS[: K - 1], "copy"])) == 1.0


def test_the_old_model_alone_is_judged_by_the_new_one():
    """Its best documents are those of its own vectors."""
    truth = FullReembedding.of(IDS, VECTORS, PROBES)
    assert truth.recall_of(VECTORS, PROBES) == 1.0
    assert truth.recall_of(-VECTORS, PROBES) == 0.0


@pytest.mark.parametrize(
    ("curve", "kept"),
    [((0.6, 0.7, 1.0), True), ((0.59, 0.7, 0.69, 1.0), True), ((0.5, 0.7, 1.0), False), ((0.6, 0.8, 0.7), False)],
)
def test_a_curve_must_rise_from_the_old_model_on(curve, kept):
    """But for what chance explains."""
    assert keeps_its_promise([Point(0.5, recall, 0.5) for recall in curve], old_alone=0.6) is kept
