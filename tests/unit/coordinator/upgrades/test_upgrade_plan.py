"""What of a plan is refused before anything is registered, and by which words."""

import msgspec
import numpy as np
import pytest

from coordinator.upgrade_plan import MAX_REPORT_BYTES, check
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


@pytest.fixture
def checked(plan, collection, artifacts):
    """Checks a plan whose artifacts are uploaded: checked(collection, force=True, **changes of the plan)."""

    async def run(collection=collection, *, force=True, **changes):
        return await check(plan(**changes), collection, artifacts.get, force=force)

    return run


async def test_a_sound_plan_passes(checked):
    """With its defaults filled in, and a number for the model that no model had."""
    passed = await checked(force=False)
    assert (passed.model.number, passed.strategy) == (2, Strategy.BRIDGE)
    assert (passed.min_migrated, passed.min_recall) == (0.99, 0.95)
    assert passed.artifacts == (passed.bridge, passed.reverse, passed.anchors)


@pytest.mark.parametrize(
    ("changes", "field", "match"),
    [
        ({"strategy": 0}, "plan.strategy", "is 0"),
        ({"strategy": 9}, "plan.strategy", "is 9"),
        ({"calibration": 0}, "plan.calibration", "is 0"),
        ({"calibration": RAW}, "plan.calibration", "is RAW, must be another one with query-bridge"),
        ({"bridge": ""}, "plan.bridge", "must be given"),
        ({"gallery_map": b"x"}, "plan.gallery_map", "must be empty with query-bridge"),
        ({"strategy": MAP}, "plan.gallery_map", "must be given"),
        ({"strategy": BOTH}, "plan.bridge", "must be empty with both-vectors"),
        ({"reverse": ""}, "plan.reverse", "must be given"),
        ({"anchors": ""}, "plan.anchors", "must be given"),
        ({"reverse": b"forged"}, "plan.reverse", "is no kintsugi-projection"),
        ({"anchors": b"forged"}, "plan.anchors", "is no kintsugi-anchors"),
        ({"uncertainty": b"forged"}, "plan.uncertainty", "is no kintsugi-uncertainty"),
        ({"bridge": "A" * 64}, "plan.bridge", "must be 64 hexadecimal digits"),
        ({"uncertainty": "../registry"}, "plan.uncertainty", "is '../registry', must be 64 hexadecimal digits"),
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
async def test_what_is_outside_its_bound_is_refused_by_its_path(checked, changes, field, match):
    """Each field with its value and what it must be."""
    with pytest.raises(InvalidArgument, match=match) as raised:
        await checked(**changes)
    assert raised.value.field == field


@pytest.mark.parametrize("field", ["bridge", "reverse", "anchors", "uncertainty"])
async def test_an_artifact_that_was_not_uploaded_is_missed_by_its_field(checked, field):
    """Or was too long ago: Redis has let go of it."""
    with pytest.raises(FailedPrecondition, match=rf"plan\.{field} names artifact 0+, which is not here") as raised:
        await checked(**{field: "0" * 64})
    assert (raised.value.field, raised.value.reason) == (f"plan.{field}", "ARTIFACT_NOT_UPLOADED")


async def test_one_altered_byte_of_an_artifact_is_refused(checked, plan, artifacts):
    """Wherever it is: the checksum tells."""
    packed = bytearray(artifacts.held[plan().bridge])
    packed[-1] ^= 1
    with pytest.raises(InvalidArgument, match="does not match its checksum"):
        await checked(bridge=bytes(packed))


async def test_projections_for_other_spaces_are_refused(checked, spaces):
    """By dimension and by metric."""
    weights, _, linear = spaces
    with pytest.raises(InvalidArgument, match="maps dimension 6 to 8, must map 8 to 6"):
        await checked(reverse=artifact.pack(linear(weights.T)))
    with pytest.raises(InvalidArgument, match=r"plan\.bridge is for dot, must be for cosine"):
        await checked(bridge=artifact.pack(linear(weights, metric=Metric.DOT)))


async def test_a_projection_of_shuffled_pairs_is_refused_even_when_forced(checked, spaces):
    """It finds no more anchors than chance does."""
    _, anchors, linear = spaces
    shuffled = np.random.default_rng(3).permutation(anchors.old)
    weights = np.linalg.lstsq(anchors.new, shuffled, rcond=None)[0]
    with pytest.raises(InvalidArgument, match=r"plan\.reverse finds .* of the anchors .* chance") as raised:
        await checked(reverse=artifact.pack(linear(weights)))
    assert raised.value.field == "plan.reverse"


async def test_a_projection_that_overflows_is_refused(checked, collection, spaces):
    """Its weights are finite, what it makes of anchors is not; no warning is left behind."""
    weights, _, linear = spaces
    under_dot = msgspec.structs.replace(
        collection,
        metric=Metric.DOT,
        models=tuple(msgspec.structs.replace(one, metric=Metric.DOT) for one in collection.models),
    )
    huge = artifact.pack(linear(np.sign(weights) * 3e38, metric=Metric.DOT))
    with pytest.raises(InvalidArgument, match=r"plan\.bridge finds .* of the anchors .* chance"):
        await checked(under_dot, bridge=huge)


async def test_a_report_that_is_nested_too_deep_is_refused(checked):
    """Like any other text that is no JSON."""
    with pytest.raises(InvalidArgument, match=r"plan\.report is no JSON"):
        await checked(report=b"[" * 100_000 + b"]" * 100_000, force=False)


async def test_anchors_that_do_not_belong_together_are_refused(checked, spaces):
    """Good projections then seem bad, and neither can be believed."""
    _, anchors, _ = spaces
    packed = anchors_file.pack(Anchors(np.random.default_rng(3).permutation(anchors.old), anchors.new))
    with pytest.raises(InvalidArgument, match="chance"):
        await checked(anchors=packed)


async def test_what_its_report_refuses_needs_force(checked):
    """The reasons are told."""
    with pytest.raises(FailedPrecondition, match="it is worse; by much") as raised:
        await checked(refused=True, force=False)
    assert raised.value.reason == "UPGRADE_REFUSED"
    await checked(refused=True)


async def test_a_model_that_a_rollback_left_behind_is_taken_up_again(checked, collection):
    """Under its number, if it is the same; one whose vectors are gone is not."""
    left = Model(2, "new", NEW, Metric.COSINE)
    after = msgspec.structs.replace(collection, models=(*collection.models, left), retired=("new",))
    assert (await checked(after, force=False)).model == left
    other = types_pb2.Model(name="new", dimension=NEW, revision="another")
    with pytest.raises(InvalidArgument, match="another model named 'new'"):
        await checked(after, new_model=other, force=False)
    gone = msgspec.structs.replace(after, dropped=("new",))
    with pytest.raises(InvalidArgument, match="whose vectors are gone"):
        await checked(gone, force=False)


async def test_a_model_too_small_for_the_encoding_is_refused(checked, collection):
    """The index of the new model is encoded like that of the old one."""
    encoded = msgspec.structs.replace(collection, encoding=parse_name("binary+prefix-9"))
    with pytest.raises(InvalidArgument, match=r"dimension is 8, must suit the encoding binary\+prefix-9") as raised:
        await checked(encoded)
    assert raised.value.field == "plan.new_model.dimension"
