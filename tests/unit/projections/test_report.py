"""The report: rows on held-out documents, refusals, and what is recommended when."""

import dataclasses

import numpy as np
import pytest

from kintsugi.metrics import Metric
from kintsugi.projections.counterparts import Counterparts
from kintsugi.projections.measures import Interval
from kintsugi.projections.projection import Kind, unit
from kintsugi.projections.report import Measured, Row, plan, recommend
from kintsugi.projections.sample import MIN_PAIRS, PairedSample, split
from kintsugi.projections.strategy import Strategy


def world(count=1500, queries=60, dimension=24, old_noise=1.2, new_noise=0.1, seed=0):
    """Documents of hidden topics as a worse old and a better new model see them, with queries and judgements. The new model's
    space is a rotation of the old one's with more dimensions."""
    random = np.random.default_rng(seed)
    topics = random.standard_normal((queries, dimension))
    of_document = random.integers(0, queries, count)
    documents = topics[of_document] + 0.3 * random.standard_normal((count, dimension))
    turn = np.linalg.qr(random.standard_normal((dimension + 8, dimension)))[0].T

    def seen(vectors, noise):
        return vectors + noise * random.standard_normal(vectors.shape)

    old_documents, old_queries = seen(documents, old_noise), seen(topics, old_noise)
    new_documents, new_queries = (seen(part, new_noise) @ turn for part in (documents, topics))
    judged = range(0, queries, 4)
    relevant = [
        frozenset(np.flatnonzero(of_document == topic).tolist()) if topic in judged else frozenset()
        for topic in range(queries)
    ]
    return PairedSample(
        Metric.COSINE,
        *(np.asarray(part, dtype=np.float32) for part in (old_documents, new_documents, old_queries, new_queries)),
        relevant=relevant,
    )


def row(report, wanted):
    return next(one for one in report.rows if one.row is wanted)


def test_a_better_model_is_planned_with_all_rows_and_a_projection_that_helps():
    """The five rows are there in order, full re-embedding is best, and the recommended start beats the old model."""
    planned = plan(world())
    report = planned.report
    assert [one.row for one in report.rows] == list(Row)
    assert row(report, Row.REEMBEDDED).recall.mean == 1.0
    assert row(report, Row.REEMBEDDED).gain.low > 0
    assert report.strategy in (Strategy.BRIDGE, Strategy.MAP)
    assert report.needs == "new"
    assert report.kind in (planned.bridges if report.strategy is Strategy.BRIDGE else planned.maps)
    assert report.update_gain > 0
    assert report.compatible
    assert report.judged
    assert row(report, Row.BRIDGED_RESCORED).recall.mean > row(report, Row.BRIDGED).recall.mean


def test_a_new_model_that_retrieves_worse_is_refused_and_can_be_forced():
    """With the roles of the models exchanged nothing is recommended, the reason names the loss; force overrides it."""
    good = world()
    worse = dataclasses.replace(
        good,
        old_documents=good.new_documents,
        new_documents=good.old_documents,
        old_queries=good.new_queries,
        new_queries=good.old_queries,
    )
    refused = plan(worse).report
    assert refused.refused
    assert refused.strategy is None
    assert refused.needs == ""
    assert "retrieves worse" in refused.reasons[0]
    assert plan(worse, force=True).report.strategy is not None


@pytest.mark.parametrize("judged", [True, False])
def test_pairs_that_do_not_belong_together_are_refused(judged):
    """Their projections are no better than chance; the reason says so, and who forces it gets no projection."""
    sample = world()
    if not judged:
        sample = dataclasses.replace(sample, relevant=(), old_queries=None, new_queries=None)
    # With judgements the gallery of the new model stays right: only what projections are fitted on is scrambled.
    fitted = np.ones(len(sample.new_documents), dtype=bool)
    fitted[sorted(place for places in sample.relevant for place in places)] = False
    places = np.arange(len(fitted))
    places[fitted] = np.random.default_rng(1).permutation(places[fitted])
    shuffled = dataclasses.replace(sample, new_documents=sample.new_documents[places])
    report = plan(shuffled).report
    assert report.refused
    assert report.strategy is None
    assert "the pairs do not belong together: the best projection finds" in report.reasons[0]
    assert "which chance may find" in report.reasons[0]
    forced = plan(shuffled, force=True).report
    assert (forced.strategy, forced.kind, forced.needs, forced.refused) == (Strategy.BOTH, None, "old and new", True)


def test_without_judgements_the_report_says_what_was_not_measured():
    """Recall against the new model's neighbours still ranks projections; nobody claims that the new model is better."""
    unjudged = dataclasses.replace(world(), relevant=(), old_queries=None, new_queries=None)
    report = plan(unjudged).report
    assert not report.judged
    assert all(one.ndcg is None for one in report.rows)
    assert "not measured" in report.reasons[0]
    assert report.strategy is not None


def test_judged_documents_are_never_fitted_on():
    """Every document that a judgement names stands in the gallery, and the fitted ones are all others or fewer."""
    sample = world()
    parts = split(sample)
    named = {place for places in sample.relevant for place in places}
    assert len(parts.old) + len(parts.old_fit) == len(sample.old_documents)
    assert len(parts.old) >= len(named)
    for relevant, query in zip(parts.relevant, parts.old_queries, strict=True):
        assert relevant
        assert max(relevant) < len(parts.old)
        assert len(query) == sample.old_documents.shape[1]
    fitted = {vector.tobytes() for vector in parts.old_fit}
    assert not any(vector.tobytes() in fitted for vector in unit(sample.old_documents[sorted(named)]))


def test_a_plan_is_the_same_for_the_same_sample_and_seed():
    """Nothing in a report depends on chance that a seed does not fix."""
    assert plan(world()).report == plan(world()).report


GOOD, BY_CHANCE = Counterparts(0.9, 0.1), Counterparts(0.1, 0.1)


def measured(row_name, low, high, kind=None):
    middle = (low + high) / 2
    return Measured(row_name, kind, Interval(0.5, 0.4, 0.6), None, Interval(middle, low, high))


@pytest.mark.parametrize(
    ("bridged", "mapped", "expected", "learned"),
    [
        ((0.1, 0.2), (0.2, 0.3), (Strategy.BRIDGE, Kind.PROCRUSTES), (GOOD, BY_CHANCE)),
        ((-0.3, -0.1), (0.2, 0.3), (Strategy.BOTH, None), (GOOD, BY_CHANCE)),
        ((0.1, 0.2), (0.2, 0.3), (Strategy.MAP, Kind.RIDGE), (GOOD, GOOD)),
        ((0.2, 0.3), (-0.3, -0.1), (Strategy.BRIDGE, Kind.PROCRUSTES), (GOOD, GOOD)),
        ((-0.1, 0.05), (-0.3, -0.1), (Strategy.BRIDGE, Kind.PROCRUSTES), (GOOD, GOOD)),
        ((-0.2, -0.1), (-0.3, -0.1), (Strategy.BOTH, None), (GOOD, GOOD)),
    ],
)
def test_the_recommendation_takes_what_is_not_worse_than_the_old_model(bridged, mapped, expected, learned):
    """The best start among the projections that learned and are no worse beyond noise; both vectors when none is."""
    rows = {
        Row.OLD_ALONE: measured(Row.OLD_ALONE, 0.0, 0.0),
        Row.BRIDGED: measured(Row.BRIDGED, *bridged, Kind.PROCRUSTES),
        Row.MAPPED: measured(Row.MAPPED, *mapped, Kind.RIDGE),
        Row.REEMBEDDED: measured(Row.REEMBEDDED, 0.2, 0.4),
    }
    by_strategy = dict(zip((Strategy.BRIDGE, Strategy.MAP), learned, strict=True))
    advice = recommend(rows, by_strategy, judged=True, force=False)
    assert (advice.strategy, advice.kind) == expected
    assert not advice.refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new_documents": np.ones((3, 4), dtype="<f4")}, "as many of both"),
        ({"old_queries": None}, "of one model only"),
        ({"relevant": [frozenset()]}, "one per query"),
        ({"relevant": [frozenset({10**6})] * 60}, "must be below 1500"),
        ({"relevant": [frozenset()] * 60}, "names no document"),
        ({"relevant": [frozenset(range(1450))] * 60}, "others are needed"),
        ({"old_documents": np.full((1500, 24), np.inf, dtype="<f4")}, "not finite"),
    ],
)
def test_a_sample_that_cannot_be_judged_by_is_refused(change, message):
    """Unequal, partial, pointing nowhere, not finite: the error names what and the bound."""
    with pytest.raises(ValueError, match=message):
        plan(dataclasses.replace(world(), **change))


def test_too_few_pairs_are_refused():
    """Below the least number of pairs nothing could be held out."""
    few = np.ones((MIN_PAIRS - 1, 4), dtype=np.float32)
    with pytest.raises(ValueError, match=f"at least {MIN_PAIRS}"):
        PairedSample(Metric.COSINE, few, few)


def test_models_that_no_artifact_fits_are_refused_before_anything_is_fitted():
    """At once: fitting maps of this size takes longer than a test may."""
    pairs = np.ones((MIN_PAIRS, 8192), dtype=np.float32)
    with pytest.raises(ValueError, match="from 8192 to 8192 dimensions takes 268435456 bytes, must take at most"):
        plan(PairedSample(Metric.COSINE, pairs, pairs))
