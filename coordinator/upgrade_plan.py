"""Checks the plan of an upgrade before anything of it is registered: the model, the bounds, and every artifact. Slow.

Guarantees of what passes: artifacts can be unpacked, are for these two models and this metric, and each projection finds more
anchors' counterparts than chance does. A plan that its own report refuses passes with force only. Artifacts are read one after
the other, since those of large models are large.
"""

import asyncio
from collections.abc import Awaitable, Callable
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
from kintsugi.registry.artifacts import KEPT_S, check_digest
from kintsugi.registry.records import Collection, Model
from kintsugi.registry.upgrades_wire import CALIBRATIONS, STRATEGIES, calibration_of, strategy_of
from kintsugi.v1 import upgrades_pb2

MAX_REPORT_BYTES = 2**20
DEFAULT_MIN_MIGRATED = 0.99
DEFAULT_MIN_RECALL = 0.95

_MAX_REASONS = 5

Read = Callable[[str], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """What is registered. Artifacts by their digests, '' for those that are not part of the plan; the report as it came."""

    model: Model
    strategy: Strategy
    calibration: Calibration
    bridge: str
    gallery_map: str
    reverse: str
    anchors: str
    report: bytes
    min_migrated: float
    min_recall: float
    uncertainty: str = ""

    @property
    def artifacts(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.bridge, self.gallery_map, self.reverse, self.anchors, self.uncertainty)))


async def check(plan: upgrades_pb2.UpgradePlan, collection: Collection, read: Read, *, force: bool) -> CheckedPlan:
    """`read` gives an artifact by its digest, or None. Raises InvalidArgument by the path of the field, FailedPrecondition when
    the report refuses the upgrade or an artifact was not uploaded, and what `read` raises."""
    checked = _fields(plan, collection)
    reasons = _report(plan)
    _check_names(plan, checked.strategy)
    old = _old_model(collection)
    await _check_artifacts(checked, collection.metric, old, read)
    if plan.refused and not force:
        raise FailedPrecondition(
            f"the report refuses the upgrade from {old.name} to {checked.model.name}: {reasons or 'it gives no reasons'}",
            field="plan.refused",
            reason="UPGRADE_REFUSED",
        )
    return checked


def not_uploaded(field: str, digest: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{field} names artifact {digest}, which is not here, must be uploaded less than {KEPT_S} s before",
        field=field,
        reason="ARTIFACT_NOT_UPLOADED",
    )


def _old_model(collection: Collection) -> Model:
    old = collection.model("")
    assert old is not None, "a collection serves one of its models"
    return old


def _fields(plan: upgrades_pb2.UpgradePlan, collection: Collection) -> CheckedPlan:
    """What can be judged without the artifacts."""
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
    return CheckedPlan(
        new, strategy, calibration, plan.bridge, plan.gallery_map, plan.reverse, plan.anchors, plan.report,
        min_migrated, min_recall, plan.uncertainty,
    )  # fmt: skip


async def _check_artifacts(plan: CheckedPlan, metric: Metric, old: Model, read: Read) -> None:
    async def data(name: str) -> bytes:
        digest: str = getattr(plan, name)
        found = await read(digest)
        if found is None:
            raise not_uploaded(f"plan.{name}", digest)
        return found

    anchors = await asyncio.to_thread(_anchors, await data("anchors"), old, plan.model)
    back, forth = (anchors.new, anchors.old), (anchors.old, anchors.new)
    for name, spaces in (("bridge", back), ("gallery_map", forth), ("reverse", back)):
        # The bridge is often the reverse map, too.
        if getattr(plan, name) and not (name == "reverse" and plan.reverse == plan.bridge):
            await asyncio.to_thread(_check_projection, await data(name), f"plan.{name}", metric, spaces)
    if plan.uncertainty:
        await asyncio.to_thread(_check_uncertainty, await data("uncertainty"), old)


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


def _check_names(plan: upgrades_pb2.UpgradePlan, strategy: Strategy) -> None:
    """Which artifacts the strategy takes, and that digests name them."""
    wanted = {
        "bridge": strategy is not Strategy.BOTH,
        "gallery_map": strategy is Strategy.MAP,
        "reverse": True,
        "anchors": True,
    }
    for name, is_wanted in wanted.items():
        given: str = getattr(plan, name)
        if bool(given) is not is_wanted:
            bound = "must be given" if is_wanted else "must be empty"
            raise InvalidArgument(f"plan.{name}", f"is {given[:80]!r}", f"{bound} with {strategy}")
    for name in (*wanted, "uncertainty"):
        if given := getattr(plan, name):
            check_digest(given, f"plan.{name}")


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


def _check_projection(packed: bytes, field: str, metric: Metric, spaces: tuple[F32Matrix, F32Matrix]) -> None:
    """`spaces`: the anchors where it maps from, and where it maps to."""
    source, target = spaces
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
