"""Checks the plan of an upgrade before anything of it is registered: the model, the bounds, and every artifact. Pure, slow.

Guarantees of what passes: artifacts can be unpacked, are for these two models and this metric, and each projection finds more
anchors' counterparts than chance does. A plan that its own report refuses passes with force only.
"""

from dataclasses import dataclass

import msgspec

from coordinator import collection_spec
from kintsugi.ann.spec import problem_of
from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.metrics import Metric
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact, uncertainty
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.artifact import ArtifactInvalid
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.counterparts import NEAREST, counterparts
from kintsugi.projections.projection import F32Matrix
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Collection, Model
from kintsugi.registry.upgrades_wire import CALIBRATIONS, STRATEGIES, calibration_of, strategy_of
from kintsugi.v1 import upgrades_pb2

MAX_ARTIFACT_BYTES = 12 * 2**20
MAX_PLAN_BYTES = 15 * 2**20
MAX_REPORT_BYTES = 2**20
DEFAULT_MIN_MIGRATED = 0.99
DEFAULT_MIN_RECALL = 0.95

_MAX_REASONS = 5


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """What is registered. Artifacts are as they came; empty ones are not part of the plan."""

    model: Model
    strategy: Strategy
    calibration: Calibration
    bridge: bytes
    gallery_map: bytes
    reverse: bytes
    anchors: bytes
    report: bytes
    min_migrated: float
    min_recall: float
    uncertainty: bytes = b""

    @property
    def artifacts(self) -> tuple[bytes, ...]:
        given = self.bridge, self.gallery_map, self.reverse, self.anchors, self.report, self.uncertainty
        return tuple(filter(None, given))


def check(plan: upgrades_pb2.UpgradePlan, collection: Collection, *, force: bool) -> CheckedPlan:
    """Raises InvalidArgument by the path of the field, FailedPrecondition when the report refuses the upgrade."""
    old = collection.model("")
    assert old is not None, "a collection serves one of its models"
    new = _new_model(plan, collection)
    strategy = strategy_of(plan.strategy)
    if strategy is None:
        raise InvalidArgument("plan.strategy", f"is {plan.strategy}", f"must be one of {_numbers(STRATEGIES)}")
    calibration = calibration_of(plan.calibration)
    if calibration is None:
        raise InvalidArgument("plan.calibration", f"is {plan.calibration}", f"must be one of {_numbers(CALIBRATIONS)}")
    if calibration is Calibration.RAW and strategy is not Strategy.MAP:
        raise InvalidArgument("plan.calibration", "is RAW", f"must be another one with {strategy}")
    min_migrated = _part(plan.min_migrated or DEFAULT_MIN_MIGRATED, "plan.min_migrated")
    min_recall = _part(plan.min_recall or DEFAULT_MIN_RECALL, "plan.min_recall")
    reasons = _report(plan)
    _check_presence(plan, strategy)
    anchors = _anchors(plan.anchors, old, new)
    metric = collection.metric
    if plan.bridge:
        _check_projection(plan.bridge, "plan.bridge", metric, anchors.new, anchors.old)
    if plan.gallery_map:
        _check_projection(plan.gallery_map, "plan.gallery_map", metric, anchors.old, anchors.new)
    _check_projection(plan.reverse, "plan.reverse", metric, anchors.new, anchors.old)
    if plan.uncertainty:
        _check_uncertainty(plan.uncertainty, old)
    if plan.refused and not force:
        raise FailedPrecondition(
            f"the report refuses the upgrade from {old.name} to {new.name}: {reasons or 'it gives no reasons'}",
            field="plan.refused",
            reason="UPGRADE_REFUSED",
        )
    return CheckedPlan(
        new, strategy, calibration, plan.bridge, plan.gallery_map, plan.reverse, plan.anchors, plan.report,
        min_migrated, min_recall, plan.uncertainty,
    )  # fmt: skip


def _new_model(plan: upgrades_pb2.UpgradePlan, collection: Collection) -> Model:
    field = "plan.new_model"
    number = max(model.number for model in collection.models) + 1
    model = collection_spec.parse_model(plan.new_model, collection.metric, field, number=number)
    if problem := problem_of(collection.encoding, model.dimension, collection.metric):
        raise InvalidArgument(
            f"{field}.dimension",
            f"is {model.dimension}",
            f"must suit the encoding {collection.encoding.name} of the collection, whose {' '.join(problem)}",
        )
    known = collection.model(model.name)
    if known is None:
        return model
    if model.name in collection.dropped:
        raise InvalidArgument(
            f"{field}.name", f"is {model.name!r}", "must not be that of a model whose vectors are gone"
        )
    if model.name not in collection.retired:
        raise InvalidArgument(f"{field}.name", f"is {model.name!r}", "must not be that of a model in use")
    if msgspec.structs.replace(model, number=known.number) != known:
        raise InvalidArgument(field, f"is another model named {model.name!r}", "must be the one of an earlier upgrade")
    return known


def _check_presence(plan: upgrades_pb2.UpgradePlan, strategy: Strategy) -> None:
    """Which artifacts the strategy takes, and their sizes."""
    wanted = {
        "bridge": strategy is not Strategy.BOTH,
        "gallery_map": strategy is Strategy.MAP,
        "reverse": True,
        "anchors": True,
    }
    sizes = {name: len(getattr(plan, name)) for name in wanted}
    others = len(plan.report) + len(plan.uncertainty)
    for name, is_wanted in wanted.items():
        if bool(sizes[name]) is not is_wanted:
            bound = "must be given" if is_wanted else "must be empty"
            raise InvalidArgument(f"plan.{name}", f"has {sizes[name]} bytes", f"{bound} with {strategy}")
        if sizes[name] > MAX_ARTIFACT_BYTES:
            raise InvalidArgument(f"plan.{name}", f"has {sizes[name]} bytes", f"must have at most {MAX_ARTIFACT_BYTES}")
    if (total := sum(sizes.values()) + others) > MAX_PLAN_BYTES:
        raise InvalidArgument("plan", f"has artifacts of {total} bytes", f"must have at most {MAX_PLAN_BYTES}")


def _anchors(packed: bytes, old: Model, new: Model) -> Anchors:
    try:
        anchors = anchors_file.unpack(packed)
    except ArtifactInvalid as error:
        raise InvalidArgument("plan.anchors", str(error)) from error
    for side, matrix, model in (("old", anchors.old, old), ("new", anchors.new, new)):
        if matrix.shape[1] != model.dimension:
            raise InvalidArgument(
                "plan.anchors",
                f"has {side} vectors of dimension {matrix.shape[1]}",
                f"must have {model.dimension}, that of {model.name}",
            )
    return anchors


def _check_uncertainty(packed: bytes, old: Model) -> None:
    field = "plan.uncertainty"
    try:
        dimension = uncertainty.unpack(packed).dimension
    except ArtifactInvalid as error:
        raise InvalidArgument(field, str(error)) from error
    if dimension != old.dimension:
        raise InvalidArgument(
            field, f"is for dimension {dimension}", f"must be for {old.dimension}, that of {old.name}"
        )


def _check_projection(packed: bytes, field: str, metric: Metric, source: F32Matrix, target: F32Matrix) -> None:
    """`source` and `target` are the anchors in the two spaces."""
    try:
        projection = artifact.unpack(packed)
    except ArtifactInvalid as error:
        raise InvalidArgument(field, str(error)) from error
    if projection.metric is not metric:
        raise InvalidArgument(field, f"is for {projection.metric}", f"must be for {metric}, that of the collection")
    found = (projection.source_dimension, projection.target_dimension)
    wanted = (source.shape[1], target.shape[1])
    if found != wanted:
        raise InvalidArgument(
            field,
            f"maps dimension {found[0]} to {found[1]}",
            f"must map {wanted[0]} to {wanted[1]}, as the two models have",
        )
    by = counterparts(projection, metric, source, target)
    if not by.learned:
        raise InvalidArgument(
            field,
            f"finds {by.found:.1%} of the anchors among their {NEAREST} nearest",
            f"must find more than {by.by_chance:.1%}, which chance may find",
        )


def _report(plan: upgrades_pb2.UpgradePlan) -> str:
    """The reasons that the report gives, in one line."""
    if not 1 <= len(plan.report) <= MAX_REPORT_BYTES:
        raise InvalidArgument("plan.report", f"has {len(plan.report)} bytes", f"must have 1 to {MAX_REPORT_BYTES}")
    try:
        report = msgspec.json.decode(plan.report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument("plan.report", f"is no JSON: {error}", "must be a JSON object") from error
    if not isinstance(report, dict):
        raise InvalidArgument("plan.report", "is no object", "must be a JSON object")
    inner = report.get("report")
    reasons = report.get("reasons") or (inner.get("reasons") if isinstance(inner, dict) else None)
    return "; ".join(map(str, reasons[:_MAX_REASONS])) if isinstance(reasons, list) else ""


def _part(value: float, field: str) -> float:
    # Written so that NaN, which compares false to everything, is refused.
    if not 0 < value <= 1:
        raise InvalidArgument(field, f"is {value:g}", "must be above 0 and at most 1")
    return value


def _numbers(
    words: dict[Strategy, upgrades_pb2.UpgradeStrategy.ValueType]
    | dict[Calibration, upgrades_pb2.ScoreCalibration.ValueType],
) -> str:
    return ", ".join(f"{number} ({word})" for word, number in words.items())
