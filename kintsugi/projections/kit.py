"""THE STORY OF A PLAN: from paired samples to all that an upgrade needs, chosen by evidence. Pure, deterministic for a seed.

1. Every kind of projection is fitted both ways and measured on held-out documents (report).
2. The anchors are drawn, of documents that no projection was fitted on as far as there are any.
3. The calibration is the one whose merged results are best on held-out queries when half the documents are re-embedded.
4. The reverse map is the kind under which clients of the old model keep most of their neighbours.
5. A predictor of the map's misses is kept if backfill in its order finds more on the way than any order does.
6. All is packed.

A refused upgrade has a complete kit too, for whoever forces it. Knows nothing of the cluster.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact, findings, uncertainty
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.calibration import MIN_ANCHORS, Calibration, choose
from kintsugi.projections.findings import Findings, Point, Tried
from kintsugi.projections.measures import Interval, PerQuery, interval, recall, top
from kintsugi.projections.migration import FRACTIONS, K, Migration, Quality, Space, spaces
from kintsugi.projections.projection import Kind, Projection
from kintsugi.projections.report import Planned, Report, Row, plan
from kintsugi.projections.sample import PairedSample, Split, split
from kintsugi.projections.strategy import Strategy
from kintsugi.projections.uncertainty import Uncertainty

ANCHORS = 1000
# Calibrations are compared where the documents of both spaces are equally many.
MIDWAY = 0.5

# Where orders of backfill are compared.
ON_THE_WAY = (0.25, 0.5, 0.75)

Progress = Callable[[str], None]


class Way(NamedTuple):
    """How documents without a new vector are scored."""

    space: Space
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Kit:
    """What Upgrades.Plan is given. `bridge` is None with BOTH, `gallery_map` only there with MAP; a MAP kit has a bridge too,
    for searches before the mapped indexes are built. `uncertainty` is None when it would not help. `refused`: the report is
    against it, forced or not."""

    findings: Findings
    bridge: bytes | None
    gallery_map: bytes | None
    reverse: bytes
    anchors: bytes
    uncertainty: bytes | None
    report_json: bytes

    @property
    def report(self) -> Report:
        return self.findings.report

    @property
    def strategy(self) -> Strategy:
        return self.findings.strategy

    @property
    def calibration(self) -> Calibration:
        return self.findings.calibration

    @property
    def refused(self) -> bool:
        return self.findings.refused


def kit(sample: PairedSample, *, force: bool = False, seed: int = 0, progress: Progress = lambda _what: None) -> Kit:
    """Fits, measures, chooses, packs. `force` makes the report name a strategy although it refuses; the reasons stay. Raises
    ValueError for a sample that cannot be judged by, or models too large for an artifact."""
    planned = plan(sample, force=True, seed=seed, progress=progress)
    return assembled(sample, planned, force=force, seed=seed, progress=progress)


def assembled(
    sample: PairedSample,
    planned: Planned,
    *,
    force: bool = False,
    seed: int = 0,
    progress: Progress = lambda _what: None,
) -> Kit:
    """The kit of a forced plan of the same sample and seed."""
    refused = planned.report.refused
    report = planned.report if force or not refused else dataclasses.replace(planned.report, strategy=None, kind=None)
    strategy = planned.report.strategy
    assert strategy is not None  # it was forced
    parts = split(sample, seed)
    best_bridge, best_map = best(planned)
    bridge = None if strategy is Strategy.BOTH else best_bridge
    gallery_map = best_map if strategy is Strategy.MAP else None
    progress("reverse map")
    reverse, reverse_recall = _reverse(parts, planned, seed)
    packed = [None if one is None else artifact.pack(one) for one in (bridge, gallery_map, reverse)]
    anchors = draw_anchors(parts, seed)
    progress("calibration")
    migration = Migration(parts, anchors, seed)
    ways = spaces(parts, anchors, bridge, gallery_map)
    tried = _calibrations(migration, ways[strategy])
    calibration = choose(
        {how: quality.deciding for how, quality in tried.items()}, native_spaces=strategy is not Strategy.MAP
    )
    progress("uncertainty")
    predictor = uncertainty.fit(best_map, parts.old_fit, parts.new_fit)
    unsure_gain = _unsure_first(parts, predictor, anchors, Way(ways[strategy], calibration), seed)
    unsure = uncertainty.pack(predictor) if unsure_gain.low > 0 else None
    progress("quality curve")
    found = Findings(
        report=report,
        strategy=strategy,
        calibration=calibration,
        calibrations=tuple(Tried(how, interval(quality.deciding)) for how, quality in tried.items()),
        curve=_curve(migration, ways, strategy, calibration),
        reverse_kind=reverse.kind,
        reverse_recall=interval(reverse_recall),
        unsure_first_gain=unsure_gain,
        anchors=len(anchors.old),
        refused=refused,
    )
    assert packed[2] is not None  # there is always a reverse map
    return Kit(found, packed[0], packed[1], packed[2], anchors_file.pack(anchors), unsure, findings.to_json(found))


def best(planned: Planned) -> tuple[Projection, Projection]:
    """The bridge and the gallery map, each of the kind that was best in its row."""
    kinds = {row.row: row.kind for row in planned.report.rows}
    bridge_kind, map_kind = kinds[Row.BRIDGED], kinds[Row.MAPPED]
    assert bridge_kind is not None  # rows of projections name one
    assert map_kind is not None
    return planned.bridges[bridge_kind], planned.maps[map_kind]


def _reverse(parts: Split, planned: Planned, seed: int) -> tuple[Projection, PerQuery]:
    """The best map of new vectors to the old space, judged as it is used: documents that have a new vector only, here every
    second one, lie mapped among the others' own old vectors."""
    truth = top(parts.metric, parts.old_queries, parts.old, K, parts.own)
    mapped = np.random.default_rng(seed).random(len(parts.old)) < MIDWAY
    kept: dict[Kind, PerQuery] = {}
    for kind, bridge in planned.bridges.items():
        # Its outputs are right for the scores of queries, but are not near the old model's vectors.
        if kind is not Kind.ADJOINT:
            gallery = np.where(mapped[:, np.newaxis], bridge.apply(parts.new), parts.old)
            kept[kind] = recall(top(parts.metric, parts.old_queries, gallery, K, parts.own), truth)
    # Among equals the simplest, which was fitted first.
    chosen = max(kept, key=lambda kind: float(kept[kind].mean()))
    return planned.bridges[chosen], kept[chosen]


def _unsure_first(parts: Split, predictor: Uncertainty, anchors: Anchors, way: Way, seed: int) -> Interval:
    """What recall gains on the way when backfill takes what the predictor is least sure of first, instead of any."""
    orders = None, np.argsort(-predictor.of(parts.old), kind="stable")
    by_chance, unsure_first = (
        np.mean([one.recall for one in Migration(parts, anchors, seed, order).qualities(*way, ON_THE_WAY)], axis=0)
        for order in orders
    )
    return interval(unsure_first - by_chance)


def draw_anchors(parts: Split, seed: int) -> Anchors:
    """Held-out documents, those that no judgement names first; fitted ones only where the others are too few."""
    random = np.random.default_rng(seed)
    judged = np.zeros(len(parts.old), dtype=np.bool_)
    judged[sorted(place for places in parts.relevant for place in places)] = True
    chosen = np.concatenate([random.permutation(np.flatnonzero(~judged)), random.permutation(np.flatnonzero(judged))])
    chosen = chosen[:ANCHORS]
    more = random.permutation(len(parts.old_fit))[: max(0, MIN_ANCHORS - len(chosen))]
    return Anchors(
        np.concatenate([parts.old[chosen], parts.old_fit[more]]),
        np.concatenate([parts.new[chosen], parts.new_fit[more]]),
    )


def _calibrations(migration: Migration, space: Space) -> dict[Calibration, Quality]:
    return {how: migration.qualities(space, how, [MIDWAY])[0] for how in Calibration}


def _curve(
    migration: Migration, ways: dict[Strategy, Space], strategy: Strategy, calibration: Calibration
) -> tuple[Point, ...]:
    old = migration.qualities(ways[Strategy.BOTH], Calibration.RAW, [0.0])[0]
    return tuple(
        Point(
            fraction,
            interval(quality.recall),
            None if quality.ndcg is None else interval(quality.ndcg),
            interval(quality.deciding - old.deciding),
        )
        for fraction, quality in zip(
            FRACTIONS, migration.qualities(ways[strategy], calibration, FRACTIONS), strict=True
        )
    )
