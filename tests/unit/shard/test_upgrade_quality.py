"""What an upgrade costs searches, estimated from anchors."""

from types import SimpleNamespace

import numpy as np
import pytest

from kintsugi.metrics import Metric, scores
from kintsugi.projections.calibration import Calibration, calibrate
from kintsugi.projections.projection import Affine, Kind
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Model
from shard.crossing import Crossing
from shard.search_call import SearchCall
from shard.upgrade_quality import REMEMBERED, CrossProbe, QualitySamples, measured

OLD = Model(number=1, name="old", dimension=12, metric=Metric.COSINE)
NEW = Model(number=2, name="new", dimension=8, metric=Metric.COSINE)
CROSSED = SimpleNamespace(other_model="old")
ALONE = SimpleNamespace(other_model="")


class World:
    """Anchors whose old vectors are an image of the new ones with some noise."""

    def __init__(self, noise, anchors=400):
        random = np.random.default_rng(3)
        self.image = random.standard_normal((8, 12)).astype(np.float32)
        self.new = random.standard_normal((anchors, 8)).astype(np.float32)
        self.old = self.new @ self.image + noise * random.standard_normal((anchors, 12)).astype(np.float32)
        self.queries = random.standard_normal((20, 8)).astype(np.float32)
        self.bridge = Affine(Kind.RIDGE, Metric.COSINE, self.image, np.zeros(12, np.float32))

    def crossing(self, how=Calibration.QUANTILES, **options):
        given = {"bridge": self.bridge, "anchors_own": self.new, "anchors_other": self.old, "mapped": False} | options
        return Crossing(Strategy.BRIDGE, how, NEW, OLD, **given)

    def measured(self, lacking, **options):
        return measured(self.crossing(**options), [CrossProbe(query, None) for query in self.queries], lacking)


def call(*queries, **options):
    return SearchCall(np.stack(queries), 10, **options)


def test_it_follows_how_many_documents_lack_a_vector():
    """With none nothing is lost; with more of them ever more is."""
    world = World(noise=1.0)
    recalls = [world.measured(lacking).estimated_recall for lacking in (0.0, 0.1, 0.5, 1.0)]
    assert recalls[0] == 1.0
    assert recalls == sorted(recalls, reverse=True)
    assert 0.1 < recalls[-1] < recalls[1] < 1.0


def test_it_follows_how_good_the_projection_is():
    """Scores that miss by more cost more hits; exact ones cost neither."""
    # Mapped onto themselves, scores are exact, and as they are no calibration between anchors blurs them.
    exact = World(0.0)
    same = exact.measured(0.5, how=Calibration.RAW, mapped=True, anchors_other=exact.new)
    assert (same.calibration_error, same.estimated_recall, same.searches) == (pytest.approx(0, abs=1e-6), 1.0, 20)
    good, bad = World(0.3).measured(0.5), World(3.0).measured(0.5)
    assert good.calibration_error < bad.calibration_error
    assert good.estimated_recall > bad.estimated_recall


def test_no_anchor_is_judged_by_itself():
    """Of noise, the error is that of guessing, which calibrating each anchor by itself would hide."""
    random = np.random.default_rng(5)
    found = World(0.0).measured(0.5, anchors_other=random.standard_normal((400, 12)).astype(np.float32))
    # The mean distance of two independent draws of one normal distribution, in its deviations.
    assert found.calibration_error == pytest.approx(2 / np.sqrt(np.pi), rel=0.1)


def test_the_error_is_told_in_deviations_of_the_native_scores():
    """As defined: calibrated by one half of the anchors, judged on the other."""
    world = World(1.0)
    halves = np.array_split(np.random.default_rng(29).permutation(400), 2)
    errors = []
    for query in world.queries:
        native = scores(Metric.COSINE, query, world.new)
        other = scores(Metric.COSINE, query @ world.image, world.old)
        off = [np.abs(calibrate(Calibration.MOMENTS, other[fit], native[fit], other[judged]) - native[judged])
               for fit, judged in (halves, halves[::-1])]  # fmt: skip
        errors.append(np.concatenate(off).mean() / native.std())
    found = world.measured(0.5, how=Calibration.MOMENTS)
    assert found.calibration_error == pytest.approx(np.mean(errors), rel=1e-4)


def test_the_same_searches_give_the_same_figures():
    """Chance does not move what a graph shows."""
    assert World(1.0).measured(0.3) == World(1.0).measured(0.3)


@pytest.mark.parametrize("options", [{"anchors_own": None}, {"anchors_other": None}, {"bridge": None}])
def test_without_evidence_nothing_is_told(options):
    """Searches that are not calibrated, or whose queries in the other space are not known."""
    assert World(1.0).measured(0.5, **options) is None


def test_few_anchors_tell_nothing():
    """Their halves are too few to calibrate by."""
    assert World(1.0, anchors=99).measured(0.5) is None
    assert World(1.0, anchors=100).measured(0.5) is not None


def test_queries_that_clients_gave_are_used_as_they_are():
    """Without a bridge there are no others; with one they go before it."""
    world = World(0.5)
    given = [CrossProbe(query, query @ world.image) for query in world.queries]
    assert measured(world.crossing(bridge=None), given, 0.5) == measured(world.crossing(), given, 0.5)
    away = [CrossProbe(query, -query @ world.image) for query in world.queries]
    assert (
        measured(world.crossing(), away, 0.5).estimated_recall < measured(world.crossing(), given, 0.5).estimated_recall
    )


def test_only_live_searches_of_both_models_documents_count():
    """Others say nothing of an upgrade."""
    world, samples = World(1.0), QualitySamples()
    samples.observe(call(*world.queries), ALONE)
    samples.observe(call(*world.queries, is_live=False), CROSSED)
    samples.measure(world.crossing(), 0.5)
    assert samples.quality is None
    samples.observe(call(*world.queries[:3]), CROSSED)
    samples.measure(world.crossing(), 0.5)
    assert samples.quality.searches == 3


def test_recent_searches_are_remembered_and_judged_as_things_are_now():
    """Without new ones, too; the oldest are forgotten."""
    world, samples = World(1.0), QualitySamples(np.random.default_rng(0))
    for _ in range(20):
        samples.observe(call(*world.queries), CROSSED)
        samples.measure(world.crossing(), 0.9)
    assert samples.quality.searches == REMEMBERED
    before = samples.quality.estimated_recall
    samples.measure(world.crossing(), 0.1)
    assert samples.quality.estimated_recall > before


def test_when_nothing_is_lacking_there_is_nothing_to_estimate():
    """And what was sampled before is forgotten."""
    world, samples = World(1.0), QualitySamples()
    samples.observe(call(*world.queries), CROSSED)
    samples.measure(world.crossing(), 0.5)
    samples.measure(None, 0.0)
    assert samples.quality is None
    samples.measure(world.crossing(), 0.5)
    assert samples.quality is None


def test_a_sample_does_not_hold_the_message_that_it_came_in():
    """Queries are views of messages of megabytes."""
    samples, asked = QualitySamples(), call(*World(1.0).queries[:1], other_queries=np.ones((1, 12), np.float32))
    samples.observe(asked, CROSSED)
    (taken,) = samples._drawn.take()
    assert not np.shares_memory(taken.query, asked.queries)
    assert not np.shares_memory(taken.other, asked.other_queries)
