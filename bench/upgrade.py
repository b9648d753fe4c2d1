"""What upgrading the model of a collection would bring: `python -m bench.upgrade --npz FILE --relevance FILE --pair OLD NEW`.

1. The planner's report: the rows of DESIGN section 6 and what it recommends (kintsugi/projections/report.py).
2. The quality curve: nDCG@10 and recall@10 against full re-embedding with a growing part of the documents re-embedded, in
   an order drawn by chance, for the baselines (alias swap, raw mixing, rank fusion) and for calibrated mixing with each
   way to answer for the documents in between. All are exact searches in this process over held-out documents: what the
   merge of scores does, without indexes or network.

FILE holds arrays doc_MODEL and query_MODEL; the relevance file is JSON with `relevant`: rows of documents for each query.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import Metric
from kintsugi.projections.calibration import Calibration, calibrate
from kintsugi.projections.measures import Interval, PerQuery, best_places, interval, ndcg, recall, score_matrix, top
from kintsugi.projections.report import K, Planned, Report, Row, plan
from kintsugi.projections.sample import PairedSample, Split, split
from kintsugi.projections.strategy import Strategy

FRACTIONS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_ANCHORS = 1000
# The constant of reciprocal rank fusion (Cormack et al., 2009).
_RRF = 60

Scores = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Curve:
    """One way through the upgrade. `needs`: the query vectors a client must give. `loss`: paired difference of nDCG to the old
    model alone at the fraction where it is worst."""

    name: str
    needs: str
    ndcg: tuple[Interval, ...]
    recall: tuple[float, ...]
    worst: Interval


@dataclass(frozen=True, slots=True)
class Space:
    """Scores of all held-out documents and of the anchors by another way than the new model's own vectors."""

    needs: str
    documents: Scores
    anchors: Scores


class Migration:
    """The held-out part of a sample, of which a growing part is re-embedded."""

    def __init__(self, parts: Split, planned: Planned, seed: int) -> None:
        random = np.random.default_rng(seed)
        chosen = random.permutation(len(parts.old_fit))[:_ANCHORS]
        self._parts = parts
        self._order = random.permutation(len(parts.old))
        self._truth = top(parts.metric, parts.new_queries, parts.new, K, parts.own)
        self.native = self._scores(parts.new_queries, parts.new)
        self.native_anchors = self._scores(parts.new_queries, parts.new_fit[chosen])
        old_alone = Space(
            "old and new",
            self._scores(parts.old_queries, parts.old),
            self._scores(parts.old_queries, parts.old_fit[chosen]),
        )
        self.spaces = {Strategy.BOTH: old_alone} | self._projected(planned, chosen)
        self.old_alone = self._quality(old_alone.documents)[0]

    def _projected(self, planned: Planned, chosen: npt.NDArray[np.intp]) -> dict[Strategy, Space]:
        parts, rows = self._parts, {row.row: row.kind for row in planned.report.rows}
        bridge_kind, map_kind = rows[Row.BRIDGED], rows[Row.MAPPED]
        assert bridge_kind is not None
        assert map_kind is not None
        bridged = planned.bridges[bridge_kind].apply(parts.new_queries)
        mapping = planned.maps[map_kind]
        return {
            Strategy.BRIDGE: Space(
                "new", self._scores(bridged, parts.old), self._scores(bridged, parts.old_fit[chosen])
            ),
            Strategy.MAP: Space(
                "new",
                self._scores(parts.new_queries, mapping.apply(parts.old)),
                self._scores(parts.new_queries, mapping.apply(parts.old_fit[chosen])),
            ),
        }

    def _scores(self, queries: npt.NDArray[np.float32], documents: npt.NDArray[np.float32]) -> Scores:
        return score_matrix(self._parts.metric, queries, documents).astype(np.float64)

    def _quality(self, scores: Scores) -> tuple[PerQuery, PerQuery]:
        found = best_places(scores, K)
        found_recall = recall(found, self._truth)
        return (ndcg(found, self._parts.relevant) if self._parts.is_judged else found_recall), found_recall

    def curve(self, name: str, needs: str, merged: Callable[[Mask], Scores]) -> Curve:
        """`merged` gives the scores by which all documents are ranked when those of the mask are re-embedded."""
        qualities = [self._quality(merged(self._migrated(fraction))) for fraction in FRACTIONS]
        differences = [quality - self.old_alone for quality, _ in qualities]
        return Curve(
            name,
            needs,
            tuple(interval(quality) for quality, _ in qualities),
            tuple(float(found.mean()) for _, found in qualities),
            interval(min(differences, key=lambda one: float(one.mean()))),
        )

    def _migrated(self, fraction: float) -> Mask:
        migrated = np.zeros(len(self._order), dtype=np.bool_)
        migrated[self._order[: round(fraction * len(self._order))]] = True
        return migrated

    def calibrated(self, space: Space, how: Calibration) -> Scores:
        """The space's scores of all documents on the scale of the new model's."""
        rows = zip(space.anchors, self.native_anchors, space.documents, strict=True)
        return np.stack([calibrate(how, other, native, values) for other, native, values in rows])

    def fused(self, other: Scores, migrated: Mask) -> Scores:
        """Reciprocal rank fusion of the migrated documents' list and that of the others."""
        fused = np.empty_like(other)
        for scores, mine in ((self.native, migrated), (other, ~migrated)):
            ranks = np.argsort(np.argsort(-scores[:, mine], axis=1), axis=1)
            fused[:, mine] = 1.0 / (_RRF + ranks)
        return fused


def _mixed(native: Scores, others: Scores, migrated: Mask) -> Scores:
    return np.where(migrated, native, others)


def curves(migration: Migration) -> list[Curve]:
    """The baselines, then calibrated mixing by each strategy."""
    old = migration.spaces[Strategy.BOTH].documents
    found = [
        migration.curve("alias swap", "old, then new", lambda done: migration.native if done.all() else old),
        migration.curve("raw mixing", "old and new", lambda done: np.where(done, migration.native, old)),
        migration.curve("rank fusion", "old and new", lambda done: migration.fused(old, done)),
    ]
    for strategy, space in migration.spaces.items():
        for how in Calibration:
            if strategy is Strategy.BOTH and how is Calibration.RAW:
                continue
            merged = functools.partial(_mixed, migration.native, migration.calibrated(space, how))
            found.append(migration.curve(f"{strategy}, {how}", space.needs, merged))
    return found


def printed(report: Report, found: list[Curve]) -> str:
    """The report and the curves as Markdown."""
    recommended = (
        f"{report.strategy or 'refused'} by {report.kind or 'no projection'} (needs {report.needs or 'nothing'})"
    )
    compatible = "yes" if report.compatible else "no"
    lines = [
        f"{report.documents} documents, {report.held_out} held out, {report.queries} queries",
        f"recommended: {recommended}; update gain {report.update_gain:.2f}, compatible: {compatible}",
        *(f"- {reason}" for reason in report.reasons),
        "",
        "| row | projection | recall@10 | nDCG@10 | difference to the old model |",
        "|---|---|---|---|---|",
        *(f"| {row.row} | {row.kind or ''} | {row.recall} | {row.ndcg or ''} | {row.gain} |" for row in report.rows),
        "",
        "| way (nDCG@10 / recall@10) | needs queries of | "
        + " | ".join(f"{fraction:.0%}" for fraction in FRACTIONS)
        + " | worst against old |",
        "|---|---|" + "---|" * (len(FRACTIONS) + 1),
    ]
    for curve in found:
        points = [f"{one.mean:.3f} / {kept:.2f}" for one, kept in zip(curve.ndcg, curve.recall, strict=True)]
        lines.append(f"| {curve.name} | {curve.needs} | {' | '.join(points)} | {curve.worst} |")
    return "\n".join(lines)


def read_sample(
    arrays: Mapping[str, npt.NDArray[np.floating]], old: str, new: str, relevant: list[list[int]]
) -> PairedSample:
    """The sample of two models from the arrays of a file."""
    old_documents, new_documents, old_queries, new_queries = (
        np.asarray(arrays[f"{part}_{model}"], dtype=np.float32) for part in ("doc", "query") for model in (old, new)
    )
    judged = [frozenset(places) for places in relevant]
    return PairedSample(Metric.COSINE, old_documents, new_documents, old_queries, new_queries, relevant=judged)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.upgrade", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--npz", type=Path, required=True, help="arrays doc_MODEL and query_MODEL")
    parser.add_argument("--relevance", type=Path, help="JSON with `relevant`: rows of documents for each query")
    parser.add_argument("--pair", nargs=2, metavar=("OLD", "NEW"), action="append", required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    relevant = json.loads(options.relevance.read_text())["relevant"] if options.relevance else []
    with np.load(options.npz) as arrays:
        for old, new in options.pair:
            sample = read_sample(arrays, old, new, relevant)
            planned = plan(sample, seed=options.seed, progress=lambda what: print(what, end="\r", file=sys.stderr))
            print(f"\n## {old} -> {new}\n")
            print(printed(planned.report, curves(Migration(split(sample, options.seed), planned, options.seed))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
