"""Measures what an upgrade from one model to another would do to retrieval, and recommends how to do it.

Outline: hold out documents (sample) -> fit all kinds both ways (fitting) -> measure each row on the same held-out queries ->
decide by paired differences with intervals (recommend).

The rows are those of DESIGN section 6: the old model alone, bridged (new query -> old space), bridged and rescored with
the new model's own vectors, gallery-mapped (old vectors -> new space), both vectors given, full re-embedding. Recall is
measured against the new model's own neighbours; nDCG@10 against judgements, where there are any. The measure that decides
is nDCG when judged, else recall. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from kintsugi.projections import artifact
from kintsugi.projections.counterparts import NEAREST, Counterparts, counterparts
from kintsugi.projections.fitting import fit_all
from kintsugi.projections.measures import (
    Interval,
    PerQuery,
    Ranking,
    best_places,
    interval,
    ndcg,
    recall,
    score_matrix,
    top,
)
from kintsugi.projections.projection import Kind, Projection
from kintsugi.projections.sample import PairedSample, Split, split
from kintsugi.projections.strategy import Strategy

K = 10
RESCORED = 200
# So many held-out documents tell whether a projection has learned anything: as many as an upgrade keeps at most.
_COUNTERPARTS = 2000


class Row(StrEnum):
    """A way to answer new-model clients while no document is re-embedded; the last is the end of the upgrade."""

    OLD_ALONE = "old model alone"
    BRIDGED = "bridged"
    BRIDGED_RESCORED = "bridged, rescored"
    MAPPED = "gallery mapped"
    REEMBEDDED = "full re-embedding"


# Which query vectors a client must give.
NEEDS = {Strategy.BRIDGE: "new", Strategy.MAP: "new", Strategy.BOTH: "old and new"}
_ROW_OF = {Strategy.BRIDGE: Row.BRIDGED, Strategy.MAP: Row.MAPPED, Strategy.BOTH: Row.OLD_ALONE}


@dataclass(frozen=True, slots=True)
class Measured:
    """One row. `kind` names the projection it took. `recall` against the new model's neighbours, `ndcg` None when not judged.
    `gain`: its paired difference to the old model alone in the measure that decides."""

    row: Row
    kind: Kind | None
    recall: Interval
    ndcg: Interval | None
    gain: Interval


@dataclass(frozen=True, slots=True)
class Report:
    """`rows` hold the best kind each; `tried` all of them. `update_gain`: which part of the step from old to new the best
    projected row brings at once (METHODS 4). `compatible`: the empirical criterion: it beats the old model alone.
    `refused`: the evidence is against the upgrade, or against the strategy that was named; `strategy` is then None unless it
    was forced. `reasons` say why, or what to know."""

    old_dimension: int
    new_dimension: int
    documents: int
    held_out: int
    queries: int
    judged: bool
    rows: tuple[Measured, ...]
    tried: tuple[Measured, ...]
    update_gain: float
    compatible: bool
    strategy: Strategy | None
    kind: Kind | None
    refused: bool
    reasons: tuple[str, ...]

    @property
    def needs(self) -> str:
        """The query vectors that the strategy needs."""
        return NEEDS[self.strategy] if self.strategy is not None else ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A report with the projections that were fitted, on all pairs but the held-out ones."""

    report: Report
    bridges: dict[Kind, Projection]
    maps: dict[Kind, Projection]


@dataclass(frozen=True, slots=True)
class _Values:
    """The measures of one row, per query."""

    row: Row
    kind: Kind | None
    recall: PerQuery
    ndcg: PerQuery | None

    @property
    def deciding(self) -> PerQuery:
        return self.recall if self.ndcg is None else self.ndcg


def plan(
    sample: PairedSample,
    *,
    force: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _what: None,
) -> Planned:
    """Fits, measures and recommends. `force` overrides the refusals; the reasons stay. Raises ValueError for a sample that
    cannot be judged by, or of models between which no artifact could be kept."""
    artifact.require_room(sample.old_documents.shape[1], sample.new_documents.shape[1])
    parts = split(sample, seed)
    truth = top(parts.metric, parts.new_queries, parts.new, K, parts.own)
    old = _values(parts, truth, Row.OLD_ALONE, None, top(parts.metric, parts.old_queries, parts.old, K, parts.own))
    new = _values(parts, truth, Row.REEMBEDDED, None, truth)
    bridges: dict[Kind, Projection] = {}
    maps: dict[Kind, Projection] = {}
    tried: list[_Values] = []
    for kind, bridge in fit_all(parts.metric, parts.new_fit, parts.old_fit, for_queries=True):
        progress(f"query bridge: {kind}")
        bridges[kind] = bridge
        tried += _bridged(parts, truth, kind, bridge)
    for kind, mapping in fit_all(parts.metric, parts.old_fit, parts.new_fit, for_queries=False):
        progress(f"gallery map: {kind}")
        maps[kind] = mapping
        found = top(parts.metric, parts.new_queries, mapping.apply(parts.old), K, parts.own)
        tried.append(_values(parts, truth, Row.MAPPED, kind, found))
    best = {row: _best(tried, row) for row in (Row.BRIDGED, Row.BRIDGED_RESCORED, Row.MAPPED)}
    measured = tuple(_measured(one, old) for one in (old, *best.values(), new))
    advice = recommend(
        {one.row: one for one in measured},
        _learned(parts, bridges[_kind(best[Row.BRIDGED])], maps[_kind(best[Row.MAPPED])]),
        judged=parts.is_judged,
        force=force,
    )
    report = _report(sample, parts, measured, tuple(_measured(one, old) for one in tried), advice)
    return Planned(report, bridges, maps)


def _kind(one: _Values) -> Kind:
    assert one.kind is not None  # rows of projections name one
    return one.kind


def _learned(parts: Split, bridge: Projection, gallery_map: Projection) -> dict[Strategy, Counterparts]:
    """How many held-out documents each projection finds by their counterparts."""
    old, new = parts.old[:_COUNTERPARTS], parts.new[:_COUNTERPARTS]
    return {
        Strategy.BRIDGE: counterparts(bridge, parts.metric, new, old),
        Strategy.MAP: counterparts(gallery_map, parts.metric, old, new),
    }


def _bridged(parts: Split, truth: Ranking, kind: Kind, bridge: Projection) -> list[_Values]:
    """A bridge alone, and its best candidates scored by the new model's own vectors."""
    candidates = top(parts.metric, bridge.apply(parts.new_queries), parts.old, RESCORED, parts.own)
    rescored = np.empty((len(candidates), min(K, candidates.shape[1])), dtype=np.intp)
    for query, mine in enumerate(candidates):
        values = score_matrix(parts.metric, parts.new_queries[query : query + 1], parts.new[mine])
        rescored[query] = mine[best_places(values, K)[0]]
    return [
        _values(parts, truth, Row.BRIDGED, kind, candidates[:, :K]),
        _values(parts, truth, Row.BRIDGED_RESCORED, kind, rescored),
    ]


def _values(parts: Split, truth: Ranking, row: Row, kind: Kind | None, found: Ranking) -> _Values:
    judged = ndcg(found, parts.relevant) if parts.is_judged else None
    return _Values(row, kind, recall(found, truth), judged)


def _best(tried: list[_Values], row: Row) -> _Values:
    """The best kind of a row; among equals the simplest, which was tried first."""
    return max((one for one in tried if one.row is row), key=lambda one: float(one.deciding.mean()))


def _measured(one: _Values, old: _Values) -> Measured:
    return Measured(
        one.row,
        one.kind,
        interval(one.recall),
        None if one.ndcg is None else interval(one.ndcg),
        interval(one.deciding - old.deciding),
    )


def _report(
    sample: PairedSample, parts: Split, measured: tuple[Measured, ...], tried: tuple[Measured, ...], advice: "Advice"
) -> Report:
    by_row = {one.row: one for one in measured}
    projected = max((by_row[Row.BRIDGED], by_row[Row.MAPPED]), key=lambda one: one.gain.mean)
    whole = by_row[Row.REEMBEDDED].gain.mean
    return Report(
        old_dimension=parts.old.shape[1],
        new_dimension=parts.new.shape[1],
        documents=len(sample.old_documents),
        held_out=len(parts.old),
        queries=len(parts.new_queries),
        judged=parts.is_judged,
        rows=measured,
        tried=tried,
        update_gain=projected.gain.mean / whole if whole > 0 else 0.0,
        compatible=projected.gain.low > 0,
        strategy=advice.strategy,
        kind=advice.kind,
        refused=advice.refused,
        reasons=advice.reasons,
    )


@dataclass(frozen=True, slots=True)
class Advice:
    """See Report."""

    strategy: Strategy | None
    kind: Kind | None
    refused: bool
    reasons: tuple[str, ...]


def recommend(rows: dict[Row, Measured], learned: dict[Strategy, Counterparts], *, judged: bool, force: bool) -> Advice:
    """The strategy with the best start that the evidence allows, its projection, and the reasons.

    Pairs that do not belong together are refused: no projection of them finds more documents by their counterparts than
    chance does. A new model that retrieves worse is refused; it can only be seen with judgements. A projection is taken when
    it is no worse than the old model alone beyond noise (the interval of the difference reaches 0 or above); else clients
    must give both vectors, which projects nothing."""
    against = _against(rows[Row.REEMBEDDED].gain, learned, judged=judged)
    reasons = list(against)
    whole = rows[Row.REEMBEDDED].gain
    if judged and whole.low <= 0 <= whole.high:
        reasons.append(f"the new model is not better beyond noise: nDCG@{K} changes by {whole}")
    if not judged:
        reasons.append("no relevance judgements were given: whether the new model retrieves better was not measured")
    good = []
    for strategy in (Strategy.MAP, Strategy.BRIDGE):
        gain = rows[_ROW_OF[strategy]].gain
        if gain.high < 0:
            reasons.append(f"{strategy} is worse than keeping the old model: {gain}")
        elif learned[strategy].learned:
            good.append(strategy)
        elif not against:
            reasons.append(f"{strategy} {_no_better(learned[strategy])}")
    if against and not force:
        return Advice(None, None, True, tuple(reasons))
    if not good:
        return Advice(Strategy.BOTH, None, bool(against), tuple(reasons))
    chosen = max(good, key=lambda strategy: rows[_ROW_OF[strategy]].gain.mean)
    return Advice(chosen, rows[_ROW_OF[chosen]].kind, bool(against), tuple(reasons))


def _against(whole: Interval, learned: dict[Strategy, Counterparts], *, judged: bool) -> list[str]:
    """What refuses the upgrade, in words."""
    found = []
    if not any(one.learned for one in learned.values()):
        best = max(learned.values(), key=lambda one: one.found)
        found.append(f"the pairs do not belong together: the best projection {_no_better(best)}")
    if judged and whole.high < 0:
        found.append(f"the new model retrieves worse than the old one: nDCG@{K} changes by {whole}")
    return found


def _no_better(one: Counterparts) -> str:
    return (
        f"finds {one.found:.1%} of held-out documents among the {NEAREST} nearest of their counterparts, must find more than "
        f"{one.by_chance:.1%}, which chance may find"
    )
