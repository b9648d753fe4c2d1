"""`python -m bench mixed`, the parts that need no processes: two models of one set, what crossing takes, the table."""

import numpy as np
import pytest

from bench.mixed import STRATEGIES, MixedReport, MixedRow, Pair, Plan, crossing_ms, markdown
from bench.origin import Origin
from bench.workloads import SMOKE_DATASET
from kintsugi.metrics import Metric
from kintsugi.projections.projection import Affine
from kintsugi.tuning.truth import exact_top_k


def pair():
    random = np.random.default_rng(1)
    vectors = random.standard_normal((4000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Pair.of(vectors, vectors[:20] + np.float32(0.01), 5, 1)


def test_the_two_models_agree_on_neighbours_after_a_projection():
    """So that both strategies find what they should; the spaces themselves have nothing in common."""
    made = pair()
    bridge = made.plan(STRATEGIES[0]).bridge
    assert isinstance(bridge, Affine)
    wanted = exact_top_k(Metric.COSINE, made.new, made.new_queries, 10).rows
    for queries, least, most in ((bridge.apply(made.new_queries), 0.6, 1.0), (made.new_queries, 0.0, 0.2)):
        found = exact_top_k(Metric.COSINE, made.old, queries, 10).rows
        shared = np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, wanted, strict=True)]) / 10
        assert least <= shared <= most


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_crossing_takes_is_timed(strategy):
    """With all that a shard does for it."""
    assert crossing_ms(pair(), strategy) > 0


def test_the_table_tells_ratio_and_share():
    """One line for each strategy and fraction."""
    row = MixedRow("query-bridge", 0.1, 2.0, 3.0, 3.0, 4.0, 1.5, 0.2, 0.1, 0.9, 0.998)
    plan = Plan(SMOKE_DATASET, STRATEGIES, shards=2, k=10, queries=5, rounds=1, compared=2, seed=1)
    text = markdown(MixedReport(Origin.of(["mixed"]), plan, [row]))
    assert "| query-bridge | 10% | 2.00 | 3.00 | 3.00 | 4.00 | 1.50 | 0.200 | 10.0% | 90.0% | 0.9980 |" in text
