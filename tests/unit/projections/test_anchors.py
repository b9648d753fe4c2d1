"""Anchors as files."""

import numpy as np
import pytest

from kintsugi.metrics import Metric
from kintsugi.projections import anchors, artifact
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.artifact import ArtifactInvalid
from kintsugi.projections.linear import procrustes


def pairs(count=60, old=4, new=6):
    random = np.random.default_rng(1)
    return random.standard_normal((count, old), np.float32), random.standard_normal((count, new), np.float32)


def test_anchors_survive_their_file():
    """Both sides come back bit for bit."""
    there = Anchors(*pairs())
    back = anchors.unpack(anchors.pack(there))
    assert np.array_equal(back.old, there.old)
    assert np.array_equal(back.new, there.new)


@pytest.mark.parametrize("count", [49, 2001])
def test_too_few_and_too_many_anchors_are_refused(count):
    """Too few tell nothing, too many cost every search."""
    with pytest.raises(ValueError, match=f"^anchors are {count} of the old model"):
        Anchors(*pairs(count))


def test_anchors_of_different_numbers_are_refused():
    """They are pairs."""
    old, new = pairs()
    with pytest.raises(ValueError, match="must be as many of both"):
        Anchors(old[:-1], new)


def test_a_forged_file_is_refused():
    """Another digest, another kind, other arrays, other shapes, elements that are no numbers."""
    old, new = pairs()
    packed = anchors.pack(Anchors(old, new))
    projection = artifact.pack(procrustes(Metric.COSINE, old, new[:, :4]))
    not_finite = new.copy()
    not_finite[3, 3] = np.nan
    forged = [
        packed[:-1] + bytes([packed[-1] ^ 1]),
        packed[:-9],
        b"",
        projection,
        artifact.pack_arrays("kintsugi-anchors", {"old": old}),
        artifact.pack_arrays("kintsugi-anchors", {"old": old, "new": new[:-1]}),
        artifact.pack_arrays("kintsugi-anchors", {"old": old, "new": new[0]}),
        artifact.pack_arrays("kintsugi-anchors", {"old": old, "new": not_finite}),
    ]
    for one in forged:
        with pytest.raises(ArtifactInvalid):
            anchors.unpack(one)
