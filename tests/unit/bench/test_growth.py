"""`python -m bench growth`, the parts that need no processes: the exponent, the fan-out's model, the table and the drawing."""

import argparse
import xml.etree.ElementTree as ET
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from bench.fan_out import FanOut, exponent, searching_ms, service_times_ms
from bench.growth import plan_of, shapes
from bench.growth_chart import svg
from bench.growth_results import Grown, GrowthReport, Plan, Window, exponents, fitted, markdown
from bench.origin import Origin

PLAN = Plan(
    dimension=16, sizes=(1000, 4000), shards=(1, 2, 4), per_shard=1000, k=10, rounds=3, seconds=0.1, warmup_s=0.1, seed=1
)  # fmt: skip
CONSTANT = np.full(100, 0.5)


def given(**changed):
    told = {"dimension": 128, "size": None, "shards": None, "per_shard": 1000, "rounds": 3, "seconds": 1.0, "seed": 1,
            "smoke": False}  # fmt: skip
    return argparse.Namespace(**(told | changed))


def grown(vectors, shards, *p50s, search_ms=0.2):
    windows = [Window(p50, 2 * p50, 0.995, 0.5, 0.2, search_ms, 0.0, 0) for p50 in p50s]
    return Grown(vectors, shards, None, windows)


def report():
    made = GrowthReport(Origin.of(["growth"]), PLAN)
    made.sizes = [grown(1000, 1, 2.0, 2.0, 2.0), grown(4000, 1, 4.0, 4.0, 4.0, search_ms=0.4)]
    # 1 ms + 0.25 ms x shards + 0.5 ms for each search of a core, of which there are two.
    made.fan_out = [grown(1000, 1, 1.75, 1.75, 1.75), grown(1000, 2, 2.0, 2.0, 2.0), grown(1000, 4, 3.0, 2.4, 3.75)]
    made.p50_exponent, made.search_exponent = exponents(made.sizes)
    made.model = fitted(made.fan_out, [np.full(10, 1.75)] * 3, cores=2)
    return made


def test_an_exponent_is_that_of_a_power():
    """Whatever stands before it; of one size there is none."""
    sizes = [50_000, 200_000, 1_000_000]
    assert exponent(sizes, [3 * size**0.25 for size in sizes]) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="1 different sizes"):
        exponent([5, 5], [1.0, 1.0])


def test_shards_of_one_core_search_one_after_the_other():
    """And those of different cores at once."""
    assert [searching_ms(CONSTANT, 4, cores) for cores in (1, 2, 4, 8)] == [2.0, 1.0, 0.5, 0.5]


def test_the_slowest_of_many_is_slower_than_the_slowest_of_few():
    """On cores of their own it is the scatter that grows."""
    scattered = np.random.default_rng(1).exponential(1.0, 5000)
    waits = [searching_ms(scattered, shards, shards) for shards in (1, 2, 8, 64)]
    assert all(few < many for few, many in pairwise(waits))
    assert waits[0] == pytest.approx(np.log(2), rel=0.1)


def test_service_times_have_the_scatter_of_latencies_and_the_level_of_cpu():
    """Never below nothing."""
    assert service_times_ms(np.array([1.0, 2.0, 4.0]), 0.5) == pytest.approx([0.0, 0.5, 2.5])


def test_the_model_goes_through_what_it_is_fitted_on():
    """And tells apart what is paid once from what each shard costs."""
    model = FanOut.fit(1.75, 2.0, CONSTANT, cores=2)
    assert (model.fixed_ms, model.per_shard_ms) == pytest.approx((1.0, 0.25))
    assert [model.latency_ms(shards, 2) for shards in (1, 2, 4)] == pytest.approx([1.75, 2.0, 3.0])
    assert model.latency_ms(4, 4) == pytest.approx(2.5)


def test_a_shard_never_costs_less_than_nothing():
    """Noise must not make many shards faster than one."""
    model = FanOut.fit(2.0, 1.5, CONSTANT, cores=2)
    assert model.per_shard_ms == 0.0
    assert model.latency_ms(1, 2) == pytest.approx(2.0)


def test_the_error_is_that_of_each_round():
    """Of the prediction for the most shards measured."""
    error = report().model.error
    assert (error.median, error.low, error.high) == pytest.approx((0.0, -0.2, 0.25))


def test_a_shape_that_is_asked_for_twice_runs_once():
    """One shard comes first: more of them search as it does."""
    assert shapes(PLAN) == [(1000, 1), (4000, 1), (1000, 2), (1000, 4)]


@pytest.mark.parametrize("wrong", [{"shards": [1, 4]}, {"shards": [0, 1, 2]}, {"size": [1000]}])
def test_what_cannot_be_fitted_is_refused(wrong):
    """Before minutes are spent."""
    with pytest.raises(ValueError, match="must"):
        plan_of(given(**wrong))


def test_the_table_tells_exponents_predictions_and_the_verdict():
    """With recall beside each figure."""
    text = markdown(report())
    assert "to the power of **0.500**" in text
    assert "that of 0.500" in text
    assert "| 4,000 | 1 | 4.00 (4.00..4.00) | 8.00 (8.00..8.00) | 0.9950 | default | 0.400 |" in text
    assert "| 4 | 3.00 | 3.00 (2.40..3.75) | 2.50 |" in text
    assert "| 64 |  |  | 17.50 |" in text
    assert "error of +0.0% (-20.0%..+25.0%); wanted within 25%: met" in text


def test_the_drawing_shows_points_both_lines_and_the_assumptions():
    """As a well-formed drawing."""
    made = report()
    root = ET.fromstring(svg(made))
    names = [element.tag.rpartition("}")[2] for element in root]
    assert names.count("circle") == len(made.sizes) + len(made.fan_out)
    assert names.count("polyline") == 3
    assert "assumed: equal shards" in svg(made)
    assert asdict(made)["model"]["per_shard_ms"] == pytest.approx(0.25)
