"""What of a plan is refused before anything is registered, and by which words."""

import msgspec
import numpy as np
import pytest

from coordinator.upgrade_plan import MAX_ARTIFACT_BYTES, MAX_REPORT_BYTES, check
from kintsugi.ann.spec import parse_name
from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.metrics import Metric
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Model
from kintsugi.v1 import types_pb2, upgrades_pb2

RAW = upgrades_pb2.SCORE_CALIBRATION_RAW
MAP = upgrades_pb2.UPGRADE_STRATEGY_GALLERY_MAP
BOTH = upgrades_pb2.UPGRADE_STRATEGY_BOTH_VECTORS
OLD, NEW = 6, 8


def test_a_sound_plan_passes(plan, collection):
    """With its defaults filled in, and a number for the model that no model had."""
    checked = check(plan(), collection, force=False)
    assert (checked.model.number, checked.strategy) == (2, Strategy.BRIDGE)
    assert (checked.min_migrated, checked.min_recall) == (0.99, 0.95)
    assert len(checked.artifacts) == 4


@pytest.mark.parametrize(
    ("changes", "field", "match"),
    [
        ({"strategy": 0}, "plan.strategy", "is 0"),
        ({"strategy": 9}, "plan.strategy", "is 9"),
        ({"calibration": 0}, "plan.calibration", "is 0"),
        ({"calibration": RAW}, "plan.calibration", "is RAW, must be another one with query-bridge"),
        ({"bridge": b""}, "plan.bridge", "must be given"),
        ({"gallery_map": b"x"}, "plan.gallery_map", "must be empty with query-bridge"),
        ({"strategy": MAP}, "plan.gallery_map", "must be given"),
        ({"strategy": BOTH}, "plan.bridge", "must be empty with both-vectors"),
        ({"reverse": b""}, "plan.reverse", "must be given"),
        ({"anchors": b""}, "plan.anchors", "must be given"),
        ({"reverse": b"forged"}, "plan.reverse", "is no kintsugi-projection"),
        ({"anchors": b"forged"}, "plan.anchors", "is no kintsugi-anchors"),
        ({"bridge": bytes(MAX_ARTIFACT_BYTES + 1)}, "plan.bridge", "must have at most"),
        ({"report": b""}, "plan.report", "has 0 bytes"),
        ({"report": bytes(MAX_REPORT_BYTES + 1)}, "plan.report", "must have 1 to"),
        ({"report": b"{"}, "plan.report", "is no JSON"),
        ({"report": b"[]"}, "plan.report", "must be a JSON object"),
        ({"min_migrated": 1.5}, "plan.min_migrated", "is 1.5"),
        ({"min_recall": float("nan")}, "plan.min_recall", "is nan"),
        ({"min_recall": -0.5}, "plan.min_recall", "is -0.5"),
        ({"new_model": types_pb2.Model(name="old", dimension=NEW)}, "plan.new_model.name", "in use"),
        ({"new_model": types_pb2.Model(name="new", dimension=NEW - 1)}, "plan.anchors", "must have 7, that of new"),
        ({"new_model": types_pb2.Model(name="new")}, "plan.new_model.dimension", "is 0"),
    ],
)
def test_what_is_outside_its_bound_is_refused_by_its_path(plan, collection, changes, field, match):
    """Each field with its value and what it must be."""
    with pytest.raises(InvalidArgument, match=match) as raised:
        check(plan(**changes), collection, force=True)
    assert raised.value.field == field


def test_one_altered_byte_of_an_artifact_is_refused(plan, collection):
    """Wherever it is: the checksum tells."""
    packed = bytearray(plan().bridge)
    packed[-1] ^= 1
    with pytest.raises(InvalidArgument, match="does not match its checksum"):
        check(plan(bridge=bytes(packed)), collection, force=True)


def test_projections_for_other_spaces_are_refused(plan, collection, spaces):
    """By dimension and by metric."""
    weights, _, linear = spaces
    with pytest.raises(InvalidArgument, match="maps dimension 6 to 8, must map 8 to 6"):
        check(plan(reverse=artifact.pack(linear(weights.T))), collection, force=True)
    with pytest.raises(InvalidArgument, match=r"plan\.bridge is for dot, must be for cosine"):
        check(plan(bridge=artifact.pack(linear(weights, metric=Metric.DOT))), collection, force=True)


def test_a_projection_of_shuffled_pairs_is_refused_even_when_forced(plan, collection, spaces):
    """It finds no more anchors than chance does."""
    _, anchors, linear = spaces
    shuffled = np.random.default_rng(3).permutation(anchors.old)
    weights = np.linalg.lstsq(anchors.new, shuffled, rcond=None)[0]
    with pytest.raises(InvalidArgument, match=r"plan\.reverse finds .* of the anchors .* chance") as raised:
        check(plan(reverse=artifact.pack(linear(weights))), collection, force=True)
    assert raised.value.field == "plan.reverse"


def test_a_projection_that_overflows_is_refused(plan, collection, spaces):
    """Its weights are finite, what it makes of anchors is not; no warning is left behind."""
    weights, _, linear = spaces
    under_dot = msgspec.structs.replace(
        collection,
        metric=Metric.DOT,
        models=tuple(msgspec.structs.replace(one, metric=Metric.DOT) for one in collection.models),
    )
    huge = artifact.pack(linear(np.sign(weights) * 3e38, metric=Metric.DOT))
    with pytest.raises(InvalidArgument, match=r"plan\.bridge finds .* of the anchors .* chance"):
        check(plan(bridge=huge), under_dot, force=True)


def test_a_report_that_is_nested_too_deep_is_refused(plan, collection):
    """Like any other text that is no JSON."""
    with pytest.raises(InvalidArgument, match=r"plan\.report is no JSON"):
        check(plan(report=b"[" * 100_000 + b"]" * 100_000), collection, force=False)


def test_anchors_that_do_not_belong_together_are_refused(plan, collection, spaces):
    """Good projections then seem bad, and neither can be believed."""
    _, anchors, _ = spaces
    packed = anchors_file.pack(Anchors(np.random.default_rng(3).permutation(anchors.old), anchors.new))
    with pytest.raises(InvalidArgument, match="chance"):
        check(plan(anchors=packed), collection, force=True)


def test_what_its_report_refuses_needs_force(plan, collection):
    """The reasons are told."""
    with pytest.raises(FailedPrecondition, match="it is worse; by much") as raised:
        check(plan(refused=True), collection, force=False)
    assert raised.value.reason == "UPGRADE_REFUSED"
    check(plan(refused=True), collection, force=True)


def test_a_model_that_a_rollback_left_behind_is_taken_up_again(plan, collection):
    """Under its number, if it is the same; one whose vectors are gone is not."""
    left = Model(2, "new", NEW, Metric.COSINE)
    after = msgspec.structs.replace(collection, models=(*collection.models, left), retired=("new",))
    assert check(plan(), after, force=False).model == left
    other = types_pb2.Model(name="new", dimension=NEW, revision="another")
    with pytest.raises(InvalidArgument, match="another model named 'new'"):
        check(plan(new_model=other), after, force=False)
    gone = msgspec.structs.replace(after, dropped=("new",))
    with pytest.raises(InvalidArgument, match="whose vectors are gone"):
        check(plan(), gone, force=False)


def test_a_model_too_small_for_the_encoding_is_refused(plan, collection):
    """The index of the new model is encoded like that of the old one."""
    encoded = msgspec.structs.replace(collection, encoding=parse_name("binary+prefix-9"))
    with pytest.raises(InvalidArgument, match=r"dimension is 8, must suit the encoding binary\+prefix-9") as raised:
        check(plan(), encoded, force=True)
    assert raised.value.field == "plan.new_model.dimension"
