"""THE STORY OF `python -m bench backfill`: which documents to re-embed first, and what traffic gains by it.

1. A gallery map is fitted on documents that no judgement names. All documents begin mapped.
2. Traffic: each draw gives queries their ranks of a Zipf law with exponent 1. Searches of it come before the backfill and
   all the way through it.
3. Orders: by chance; as the product does it, with the queue of a replica itself (shard/backfill.py: what searches ranked
   among their candidates first, then what the projection is least sure of); and an oracle's, which knows the traffic
   and the new model's vectors.
4. Quality seen by traffic is recall@10 against full re-embedding, weighted by traffic.

Searches are exact, in this process: no indexes, no network.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench import command
from bench.backfill_ground import Ground, prepare
from bench.origin import Origin, columns
from bench.upgrade_sets import of_file
from kintsugi.ann.vector_index import Rows
from kintsugi.projections.fitting import fit
from kintsugi.projections.measures import Interval, interval
from kintsugi.projections.migration import K, Mask
from kintsugi.projections.projection import Kind
from kintsugi.projections.sample import Places, split
from shard.backfill import BackfillQueue
from shard.heat import Heat

Tell = Callable[[str], None]
Curve = npt.NDArray[np.float64]
Traffic = npt.NDArray[np.float64]

POINTS = 41
TOLD = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
EARLY, GOOD = 0.1, 0.9
# Documents that a worker takes at once: so many parts of all.
_BATCHES = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    candidates: int
    searches_per_document: float
    documents_per_s: float
    warm_up_s: float
    draws: int
    seed: int


@dataclass(frozen=True, slots=True)
class Order:
    """Means over draws at each point, from 0 to 1. `reached`: the fraction at which quality is GOOD."""

    name: str
    quality: tuple[float, ...]
    early: Interval
    reached: Interval
    area: Interval


@dataclass(frozen=True, slots=True)
class Gallery:
    """`ratio`: of the product's quality to that by chance when EARLY is re-embedded; `needed`: of the documents until GOOD."""

    name: str
    documents: int
    queries: int
    orders: list[Order]
    ratio: Interval
    needed: Interval


@dataclass(frozen=True, slots=True)
class BackfillReport:
    origin: Origin
    plan: Plan
    galleries: list[Gallery] = field(default_factory=list)


class _Lacking:
    """The documents without a new vector, as a replica tells its queue. Row n + 1 is document n: rows are from 1."""

    def __init__(self, documents: int) -> None:
        self.migrated: Mask = np.zeros(documents, dtype=np.bool_)

    def among(self, rows: Rows) -> Rows:
        return rows[~self.migrated[rows.astype(np.intp) - 1]]

    def after(self, row: int, limit: int) -> Rows:
        return (np.flatnonzero(~self.migrated[row:])[:limit] + row + 1).astype(np.uint64)


def _zipf(queries: int, random: np.random.Generator) -> Traffic:
    weights = 1.0 / np.arange(1, queries + 1)
    return random.permutation(weights / weights.sum())


def _by_chance(ground: Ground, traffic: Traffic, random: np.random.Generator, _plan: Plan) -> Curve:
    return _played(ground, traffic, [random.permutation(ground.documents)])


def _as_the_product(ground: Ground, traffic: Traffic, random: np.random.Generator, plan: Plan) -> Curve:
    """Searches heat the queue, and batches are taken from it, in turns."""
    now = 0.0
    lacking, heat = _Lacking(ground.documents), Heat(clock=lambda: now)
    queue = BackfillQueue(lacking, heat, unsure=lambda rows: ground.unsure[rows.astype(np.intp) - 1], clock=lambda: now)

    def search(count: int) -> None:
        asked = random.choice(ground.queries, count, p=traffic)
        distinct, which = np.unique(asked, return_inverse=True)
        found = ground.ranked(distinct, lacking.migrated, plan.candidates)
        documents = np.take_along_axis(ground.contenders[distinct], found, axis=1)
        unmigrated = [mine[~lacking.migrated[mine]] + 1 for mine in documents]
        for one in which:
            heat.observe(unmigrated[one].astype(np.uint64))

    def batches() -> "Sequence[Places]":
        nonlocal now
        batch = max(1, ground.documents // _BATCHES)
        search(round(plan.warm_up_s * plan.documents_per_s * plan.searches_per_document))
        taken = []
        while not lacking.migrated.all():
            rows = queue.next(batch, 60.0).astype(np.intp) - 1
            lacking.migrated[rows] = True
            taken.append(rows)
            now += len(rows) / plan.documents_per_s
            search(round(len(rows) * plan.searches_per_document))
        return taken

    return _played(ground, traffic, batches())


def _by_oracle(ground: Ground, traffic: Traffic, _random: np.random.Generator, _plan: Plan) -> Curve:
    """Batch by batch what keeps most traffic from its ten best: documents that are wrongly among them, or missing."""
    migrated: Mask = np.zeros(ground.documents, dtype=np.bool_)
    queries = np.arange(ground.queries)
    batch, taken = max(1, ground.documents // _BATCHES), []
    weights = np.repeat(traffic[:, np.newaxis], ground.contenders.shape[1], axis=1)
    while not migrated.all():
        shown = np.zeros_like(ground.true)
        np.put_along_axis(shown, ground.ranked(queries, migrated, K), values=True, axis=1)
        worth = np.bincount(ground.contenders.ravel(), (weights * (shown != ground.true)).ravel(), ground.documents)
        worth[migrated] = -1.0
        rows = np.argsort(-worth, kind="stable")[: min(batch, int((~migrated).sum()))]
        migrated[rows] = True
        taken.append(rows)
    return _played(ground, traffic, taken)


def _played(ground: Ground, traffic: Traffic, batches: Sequence[Places]) -> Curve:
    """The quality that traffic sees at each point."""
    order = np.concatenate(batches)
    migrated: Mask = np.zeros(ground.documents, dtype=np.bool_)
    curve = []
    for point in np.linspace(0.0, 1.0, POINTS):
        migrated[order[: round(point * len(order))]] = True
        curve.append(float(traffic @ ground.quality(migrated)))
    return np.array(curve)


_ORDERS = {"by chance": _by_chance, "traffic first": _as_the_product, "oracle": _by_oracle}


def reached(curve: Curve, quality: float = GOOD) -> float:
    """The fraction of documents at which a curve first has the quality, in straight lines between its points; 1 if never."""
    points = np.linspace(0.0, 1.0, len(curve))
    enough = np.flatnonzero(curve >= quality)
    if not len(enough):
        return 1.0
    at = int(enough[0])
    if at == 0:
        return 0.0
    part = (quality - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(points[at - 1] + part * (points[at] - points[at - 1]))


def measure(name: str, ground: Ground, plan: Plan, tell: Tell) -> Gallery:
    """Plays every order over all draws, each order on the same ones."""
    curves: dict[str, list[Curve]] = {order: [] for order in _ORDERS}
    for draw in range(plan.draws):
        for order, play in _ORDERS.items():
            random = np.random.default_rng((plan.seed, draw))
            curves[order].append(play(ground, _zipf(ground.queries, random), random, plan))
        tell(f"  {name}: draw {draw + 1} of {plan.draws}")
    early = round(EARLY * (POINTS - 1))
    chance, ours = (np.stack(curves[order]) for order in ("by chance", "traffic first"))
    return Gallery(
        name,
        ground.documents,
        ground.queries,
        [_order(order, np.stack(mine)) for order, mine in curves.items()],
        interval(ours[:, early] / chance[:, early]),
        interval(np.array([reached(one) / reached(other) for one, other in zip(ours, chance, strict=True)])),
    )


def _order(name: str, curves: Curve) -> Order:
    areas = np.trapezoid(curves, np.linspace(0.0, 1.0, POINTS), axis=1)
    return Order(
        name,
        tuple(float(value) for value in curves.mean(axis=0)),
        interval(curves[:, round(EARLY * (POINTS - 1))]),
        interval(np.array([reached(curve) for curve in curves])),
        interval(np.asarray(areas)),
    )


def markdown(report: BackfillReport) -> str:
    lines = [report.origin.heading]
    for one in report.galleries:
        lines += ["", f"## {one.name}: {one.documents:,} documents, {one.queries:,} queries", ""]
        lines += [
            f"quality with {EARLY:.0%} re-embedded, traffic first by that by chance: {one.ratio} (at least 1.4 wanted)",
            f"documents until {GOOD:g}, traffic first by those by chance: {one.needed} (at most 0.5 wanted)",
            "",
        ]
        head = ["order", *(f"{point:.0%}" for point in TOLD), f"at {EARLY:.0%}", f"documents until {GOOD:g}", "area"]
        lines.append(columns(head, [_cells(order) for order in one.orders]))
    return "\n".join(lines)


def _cells(order: Order) -> list[str]:
    points = [f"{order.quality[round(point * (POINTS - 1))]:.3f}" for point in TOLD]
    return [order.name, *points, str(order.early), str(order.reached), str(order.area)]


def main(argv: Sequence[str], tell: Tell) -> int:
    arguments = _parser().parse_args(list(argv))
    plan = Plan(
        arguments.candidates,
        arguments.searches_per_document,
        arguments.documents_per_s,
        arguments.warm_up,
        arguments.draws,
        arguments.seed,
    )
    report = BackfillReport(Origin.of(["backfill", *argv]), plan)
    (one,) = of_file(arguments.npz, arguments.relevance, [arguments.pair])
    parts = split(one.sample, plan.seed)
    tell(f"{one.old} -> {one.new}: fitting the map")
    gallery_map = fit(Kind(arguments.kind), parts.metric, parts.old_fit, parts.new_fit)
    for name, held_out in (("the whole collection", False), ("only what nothing was fitted on", True)):
        ground = prepare(one.sample, gallery_map, plan.seed, held_out=held_out)
        report.galleries.append(measure(name, ground, plan, tell))
    command.publish(arguments.output, "backfill", report, markdown(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    example = "--npz embeddings.npz --relevance relevant.json --pair OLD NEW"
    parser = command.parser("backfill", __doc__, example, smoke=False)
    add = parser.add_argument
    add("--npz", type=Path, required=True, metavar="FILE", help="arrays doc_MODEL and query_MODEL")
    add("--relevance", type=Path, metavar="FILE", help="JSON with `relevant`: rows of documents for each query; the map is"
        " not fitted on these")  # fmt: skip
    add("--pair", nargs=2, metavar=("OLD", "NEW"), required=True, help="two models of it")
    add("--kind", choices=[kind.value for kind in (Kind.RIDGE, Kind.PROCRUSTES, Kind.MLP)], default=Kind.MLP.value,
        help="of the gallery map; default: mlp")  # fmt: skip
    add("--candidates", type=int, default=40, help="of each search, which count for the order; default: 40")
    add("--searches-per-document", type=float, default=1.0, help="searches per re-embedded document; default: 1")
    add("--documents-per-s", type=float, default=10.0, help="re-embedded, which tells how fast heat fades; default: 10")
    add("--warm-up", type=float, default=300.0, help="seconds of traffic before the backfill begins; default: 300")
    add("--draws", type=int, default=20, help="of the queries' ranks in traffic; default: 20")
    add("--seed", type=int, default=0, help="default: 0")
    return parser
