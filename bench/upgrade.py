"""THE STORY OF `python -m bench upgrade`: what changing the model of a collection brings, on the way and at the end.

1. The planner's report: the rows of DESIGN section 6 and what it recommends (kintsugi/projections/kit.py).
2. The quality curve: nDCG@10 and recall@10 against full re-embedding with a growing part of the documents re-embedded, in
   an order drawn by chance, for the baselines (alias swap, raw mixing, rank fusion) and for calibrated mixing with each
   way to answer for the documents in between.
3. Whether the recommended way keeps what is promised of it: at each point no worse than the best baseline beyond noise, and
   at least 0.99 of the old model alone. Of a refused upgrade the curve is only told.

All are exact searches in this process over held-out documents: what merging scores does, without indexes or network.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import command
from bench.origin import Origin
from bench.upgrade_sets import UpgradeSet, of_demo, of_file
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections.calibration import Calibration, Scores
from kintsugi.projections.findings import Findings, rows_table, summary
from kintsugi.projections.kit import assembled, best
from kintsugi.projections.measures import Interval, interval
from kintsugi.projections.migration import FRACTIONS, Mask, Merge, Migration, Quality, Space, replaced, spaces
from kintsugi.projections.report import NEEDS, plan
from kintsugi.projections.sample import split
from kintsugi.projections.strategy import Strategy

Tell = Callable[[str], None]

# The constant of reciprocal rank fusion (Cormack et al., 2009).
_RRF = 60
_OF_OLD_ALONE = 0.99


@dataclass(frozen=True, slots=True)
class Curve:
    """One way through the upgrade. `needs`: the query vectors a client must give. `worst`: paired difference of the deciding
    measure to the old model alone, at the point where it is worst."""

    name: str
    needs: str
    baseline: bool
    deciding: tuple[Interval, ...]
    recall: tuple[float, ...]
    worst: Interval


@dataclass(frozen=True, slots=True)
class Promise:
    """Of the recommended way at one point: `against`, the best baseline there, and the paired difference to it."""

    fraction: float
    against: str
    difference: Interval
    of_old_alone: float
    kept: bool


@dataclass(frozen=True, slots=True)
class SetResult:
    name: str
    old: str
    new: str
    findings: Findings
    curves: list[Curve]
    promises: list[Promise]


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    origin: Origin
    fractions: tuple[float, ...] = FRACTIONS
    sets: list[SetResult] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Way:
    name: str
    needs: str
    space: Space
    how: Calibration
    merge: Merge
    baseline: bool = False


def _fused(native: Scores, other: Scores, migrated: Mask) -> Scores:
    """Reciprocal rank fusion of the re-embedded documents' list and that of the others."""
    fused = np.empty_like(other)
    for scores, mine in ((native, migrated), (other, ~migrated)):
        ranks = np.argsort(np.argsort(-scores[:, mine], axis=1), axis=1)
        fused[:, mine] = 1.0 / (_RRF + ranks)
    return fused


def _swapped(native: Scores, other: Scores, migrated: Mask) -> Scores:
    return native.copy() if migrated.all() else other.copy()


def _ways(ground: dict[Strategy, Space]) -> list[_Way]:
    """The baselines, then calibrated mixing by each strategy. Raw scores of native spaces are a baseline."""
    old = ground[Strategy.BOTH]
    ways = [
        _Way("alias swap", "old, then new", old, Calibration.RAW, _swapped, baseline=True),
        _Way("raw mixing", "old and new", old, Calibration.RAW, replaced, baseline=True),
        _Way("rank fusion", "old and new", old, Calibration.RAW, _fused, baseline=True),
    ]
    return ways + [
        _Way(f"{strategy}, {how}", NEEDS[strategy], space, how, replaced)
        for strategy, space in ground.items()
        for how in Calibration
        if how is not Calibration.RAW or strategy is Strategy.MAP
    ]


def measure(one: UpgradeSet, seed: int, tell: Tell) -> SetResult:
    """Plans and plays one upgrade."""
    tell(f"{one.name}: {one.old} -> {one.new}")
    planned = plan(one.sample, force=True, seed=seed, progress=lambda what: tell(f"  {what}"))
    made = assembled(one.sample, planned, seed=seed, progress=lambda what: tell(f"  {what}"))
    parts = split(one.sample, seed)
    anchors = anchors_file.unpack(made.anchors)
    migration = Migration(parts, anchors, seed)
    found: list[tuple[_Way, list[Quality]]] = []
    for way in _ways(spaces(parts, anchors, *best(planned))):
        tell(f"  curve: {way.name}")
        found.append((way, migration.qualities(way.space, way.how, FRACTIONS, way.merge)))
    old = found[0][1][0]
    curves = [_curve(way, qualities, old) for way, qualities in found]
    chosen = f"{made.strategy}, {made.calibration}"
    return SetResult(one.name, one.old, one.new, made.findings, curves, _promises(chosen, found, old))


def _curve(way: _Way, qualities: list[Quality], old: Quality) -> Curve:
    differences = [one.deciding - old.deciding for one in qualities]
    return Curve(
        way.name,
        way.needs,
        way.baseline,
        tuple(interval(one.deciding) for one in qualities),
        tuple(float(one.recall.mean()) for one in qualities),
        interval(min(differences, key=lambda difference: float(difference.mean()))),
    )


def _promises(chosen: str, found: list[tuple[_Way, list[Quality]]], old: Quality) -> list[Promise]:
    ours = next(qualities for way, qualities in found if way.name == chosen)
    baselines = [(way.name, qualities) for way, qualities in found if way.baseline]
    kept = []
    for at, fraction in enumerate(FRACTIONS):
        name, qualities = max(baselines, key=lambda entry: float(entry[1][at].deciding.mean()))
        difference = interval(ours[at].deciding - qualities[at].deciding)
        of_old = float(ours[at].deciding.mean() / max(old.deciding.mean(), 1e-12))
        kept.append(Promise(fraction, name, difference, of_old, difference.high >= 0 and of_old >= _OF_OLD_ALONE))
    return kept


def markdown(report: UpgradeReport) -> str:
    lines = [report.origin.heading]
    for one in report.sets:
        lines += ["", f"## {one.name}: {one.old} -> {one.new}", "", *summary(one.findings), ""]
        lines += [*rows_table(one.findings.report), "", *_curves_table(one), "", *_promises_table(one)]
    return "\n".join(lines)


def _curves_table(one: SetResult) -> list[str]:
    measure_name = "nDCG@10" if one.findings.report.judged else "recall@10"
    points = " | ".join(f"{fraction:.0%}" for fraction in FRACTIONS)
    lines = [
        f"| way ({measure_name} / recall@10) | needs queries of | {points} | worst against old |",
        "|---|---|" + "---|" * (len(FRACTIONS) + 1),
    ]
    for curve in one.curves:
        cells = [f"{value.mean:.3f} / {kept:.2f}" for value, kept in zip(curve.deciding, curve.recall, strict=True)]
        lines.append(f"| {curve.name} | {curve.needs} | {' | '.join(cells)} | {curve.worst} |")
    return lines


def _promises_table(one: SetResult) -> list[str]:
    taken = f"{one.findings.strategy}, {one.findings.calibration}"
    head = f"{'if forced, only told' if one.findings.refused else 'recommended'}: {taken}"
    lines = [head, "", "| re-embedded | best baseline | difference to it | of the old model alone | kept |"]
    lines.append("|---|---|---|---|---|")
    for point in one.promises:
        verdict = "not promised" if one.findings.refused else ("yes" if point.kept else "NO")
        cells = (f"{point.fraction:.0%}", point.against, str(point.difference), f"{point.of_old_alone:.3f}", verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str], tell: Tell) -> int:
    parser = _parser()
    arguments = parser.parse_args(list(argv))
    if not arguments.demo and not (arguments.npz and arguments.pair):
        parser.error("there is nothing to upgrade, must be --demo, or --npz with a --pair")
    report = UpgradeReport(Origin.of(["upgrade", *argv]))
    sets = of_file(arguments.npz, arguments.relevance, arguments.pair) if arguments.npz else []
    if arguments.demo:
        sets.append(of_demo(arguments.seed))
    report.sets.extend(measure(one, arguments.seed, tell) for one in sets)
    command.publish(arguments.output, "upgrade", report, markdown(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    example = "--npz embeddings.npz --relevance relevant.json --pair OLD NEW --demo"
    parser = command.parser("upgrade", __doc__, example, smoke=False)
    add = parser.add_argument
    add("--npz", type=Path, metavar="FILE", help="arrays doc_MODEL and query_MODEL")
    add("--relevance", type=Path, metavar="FILE", help="JSON with `relevant`: rows of documents for each query")
    add("--pair", nargs=2, metavar=("OLD", "NEW"), action="append", default=[], help="two models of it; repeatable")
    add("--demo", action="store_true", help="also the demo's corpus, from words to words and letters")
    add("--seed", type=int, default=0, help="of what is held out, and of the order; default: 0")
    return parser
