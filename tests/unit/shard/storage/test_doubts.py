"""The order that an upgrade's predictor gives to documents nobody asks for."""

from types import SimpleNamespace

import numpy as np
import pytest

from kintsugi.projections.uncertainty import Uncertainty
from shard.doubts import doubts

# Less sure of vectors with larger elements.
PREDICTOR = Uncertainty(np.zeros(4, np.float32), np.ones(4, np.float32), np.zeros(4, np.float32), 0.0, False)


def upgrade(uncertainty):
    return SimpleNamespace(uncertainty=uncertainty, old_number=1, new_number=2)


@pytest.fixture
def storage(open_storage, memory_log):
    opened = open_storage()
    for doc_id, value in ((1, 3.0), (2, 7.0), (3, 5.0)):
        opened.apply(memory_log.put(doc_id, value))
    return opened


def test_old_vectors_decide(storage):
    """Rows are scored by the predictor; what has no old vector at all comes first."""
    rows = storage.hits(np.arange(20, dtype=np.uint64)).rows
    scores = doubts(storage, lambda: upgrade(PREDICTOR), 2, np.append(rows, np.uint64(99)))
    assert scores.tolist() == [12.0, 28.0, 20.0, np.inf]


@pytest.mark.parametrize(("model", "loaded"), [(2, None), (2, upgrade(None)), (1, upgrade(PREDICTOR))])
def test_without_a_predictor_there_is_no_order(storage, model, loaded):
    """Outside of upgrades, without one that helps, and for the model that is left."""
    assert doubts(storage, lambda: loaded, model, np.array([1], dtype=np.uint64)) is None
