"""The kit: all that an upgrade needs, packed, chosen by evidence, and told for machines and people."""

import dataclasses

import msgspec
import numpy as np
import pytest

from kintsugi.projections import anchors, artifact, plot, uncertainty
from kintsugi.projections import kit as kits
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.findings import from_json, table
from kintsugi.projections.kit import kit
from kintsugi.projections.migration import FRACTIONS
from kintsugi.projections.projection import Kind, unit
from kintsugi.projections.report import NEEDS, Row
from kintsugi.projections.sample import split
from kintsugi.projections.strategy import Strategy
from tests.unit.projections.test_report import world


@pytest.fixture(scope="module")
def made():
    return kit(world())


def exchanged(sample):
    return dataclasses.replace(
        sample,
        old_documents=sample.new_documents,
        new_documents=sample.old_documents,
        old_queries=sample.new_queries,
        new_queries=sample.old_queries,
    )


def test_a_kit_has_projections_between_the_right_spaces(made):
    """The bridge and the reverse map lead from new to old, the gallery map from old to new; the report names their kinds."""
    old, new = made.report.old_dimension, made.report.new_dimension
    reverse = artifact.unpack(made.reverse)
    assert (reverse.source_dimension, reverse.target_dimension) == (new, old)
    assert reverse.kind is made.findings.reverse_kind
    assert reverse.kind is not Kind.ADJOINT
    bridge = artifact.unpack(made.bridge)
    assert (bridge.source_dimension, bridge.target_dimension) == (new, old)
    if made.strategy is Strategy.MAP:
        mapping = artifact.unpack(made.gallery_map)
        assert (mapping.source_dimension, mapping.target_dimension) == (old, new)
        assert mapping.kind is made.report.kind
    assert not made.refused


def test_anchors_are_pairs_that_no_projection_was_fitted_on(made):
    """Every anchor is a held-out document, with its vectors of both models in the same place."""
    parts = split(world())
    found = anchors.unpack(made.anchors)
    held_out = {vector.tobytes(): place for place, vector in enumerate(parts.old)}
    for old, new in zip(found.old, found.new, strict=True):
        assert new.tobytes() == parts.new[held_out[old.tobytes()]].tobytes()


def test_the_curve_begins_at_the_row_of_the_strategy_and_ends_at_full_reembedding(made):
    """The first point is what the report says of the strategy before anything is re-embedded."""
    rows = {row.row: row for row in made.report.rows}
    begin = rows[Row.MAPPED if made.strategy is Strategy.MAP else Row.BRIDGED]
    curve = made.findings.curve
    assert [point.fraction for point in curve] == list(FRACTIONS)
    if made.calibration is not Calibration.RAW or made.strategy is Strategy.MAP:
        assert curve[0].ndcg.mean == pytest.approx(begin.ndcg.mean, abs=0.02)
    assert curve[-1].ndcg == rows[Row.REEMBEDDED].ndcg
    assert curve[-1].recall.mean == 1.0


def test_findings_are_the_same_after_reading_their_json(made):
    """What is kept with the upgrade tells later what the planner knew; other bytes are refused."""
    assert from_json(made.report_json) == made.findings
    with pytest.raises(ValueError, match="no report of an upgrade"):
        from_json(b"{}")
    newer = msgspec.json.decode(made.report_json) | {"format_version": 2}
    with pytest.raises(ValueError, match="format version 2, must have 1"):
        from_json(msgspec.json.encode(newer))


def test_the_table_has_every_row_and_every_point(made):
    """People see what is recommended, the five rows of the design, and the way through the upgrade."""
    lines = table(made.findings).splitlines()
    assert lines[0] == f"recommended: {made.strategy}"
    firsts = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert {*Row} <= set(firsts)
    assert {f"{fraction:.0%}" for fraction in FRACTIONS} <= set(firsts)


def test_a_refused_upgrade_has_a_complete_kit_that_says_so():
    """A new model that retrieves worse: no strategy in the report unless forced, refused either way, and the reason is told."""
    worse = exchanged(world())
    refused, forced = kit(worse), kit(worse, force=True)
    assert refused.refused
    assert forced.refused
    assert refused.report.strategy is None
    assert forced.report.strategy is forced.strategy
    assert refused.reverse == forced.reverse
    assert table(refused.findings).startswith("refused")
    assert "retrieves worse" in table(refused.findings)
    assert f"needs query vectors of: {NEEDS[refused.strategy]}" in table(refused.findings)


def test_when_no_projection_is_good_enough_both_vectors_are_needed():
    """Pairs that do not belong together: no bridge, no map, and a calibration that is never raw."""
    good = world()
    named = sorted(place for places in good.relevant for place in places)
    others = np.setdiff1d(np.arange(len(good.new_documents)), named)
    places = np.arange(len(good.new_documents))
    places[others] = np.random.default_rng(1).permutation(others)
    made = kit(dataclasses.replace(good, new_documents=good.new_documents[places]))
    assert made.strategy is Strategy.BOTH
    assert made.bridge is None
    assert made.gallery_map is None
    assert made.calibration is not Calibration.RAW


def test_a_sample_without_queries_gives_a_kit_measured_by_recall():
    """Held-out documents ask, and do not find themselves: at the end everything is found."""
    made = kit(dataclasses.replace(world(), relevant=(), old_queries=None, new_queries=None))
    assert all(point.ndcg is None for point in made.findings.curve)
    assert made.findings.curve[-1].recall.mean == 1.0
    assert "not judged" in table(made.findings)


def test_fitted_pairs_become_anchors_only_when_held_out_ones_are_too_few():
    """Of few pairs a fifth is held out: all of them are anchors, and as many others as are needed."""
    few = world(count=200, queries=8)
    parts = split(dataclasses.replace(few, relevant=(), old_queries=None, new_queries=None))
    found = kits.draw_anchors(parts, 0)
    assert len(parts.old) < 50
    assert len(found.old) == 50
    assert {vector.tobytes() for vector in parts.old} < {vector.tobytes() for vector in unit(found.old)}


def test_a_predictor_is_packed_only_if_it_orders_backfill_better_than_chance(made):
    """What does not help measurably is not sent."""
    assert (made.uncertainty is not None) == (made.findings.unsure_first_gain.low > 0)
    if made.uncertainty is not None:
        assert uncertainty.unpack(made.uncertainty).dimension == made.report.old_dimension


def test_the_plot_has_rows_and_curve_and_is_the_same_each_time(made, tmp_path):
    """An SVG that names what is recommended."""
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg"):
        plot.draw(made.findings, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert b"<svg" in (tmp_path / "one.svg").read_bytes()
