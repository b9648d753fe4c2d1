"""Scene: the collection moves to a new model while clients of the old and of the new one search without pause.

The planner measures on a sample what to do; documents are re-embedded by workers; what clients of the new model find on
the way is compared with what full re-embedding would give; then the new model becomes the one that requests mean.
"""

import asyncio
import time
from contextlib import ExitStack

import numpy as np
from rich.markup import escape

from kintsugi.demo import embed, quality
from kintsugi.demo.answers import K
from kintsugi.demo.checks import Promise
from kintsugi.demo.embed import Vectors
from kintsugi.demo.quality import FullReembedding, Point
from kintsugi.demo.reembedding import Reembedding
from kintsugi.demo.stage import COLLECTION, Stage
from kintsugi.demo.traffic import AskedAmidUpgrade, Traffic
from kintsugi.errors import DeadlineExceeded
from kintsugi.metrics import Metric
from kintsugi.projections import findings, kit
from kintsugi.projections.sample import PairedSample
from kintsugi.registry.records import UpgradeState
from kintsugi.sdk.aio import AsyncClient
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.upgrade_types import Upgrade, UpgradePlan

OLD, NEW = embed.MODEL.name, embed.NEW_MODEL.name
FRACTIONS = (0.25, 0.5, 0.75, 1.0)
_SAMPLE = 2000
_WORKERS = 2
_SEARCHES_BETWEEN = 50
_SEED = 3
_POLL_S = 0.1


def play(stage: Stage) -> None:
    with ExitStack() as closing:
        clients = [closing.enter_context(stage.client()) for _ in range(_WORKERS)]
        upgrade = _planned(stage, clients[0])
        asyncio.run(_upgrade(stage, upgrade, clients))


def _planned(stage: Stage, client: Client) -> Upgrade:
    """Measures on a sample, says what was found, and registers the plan."""
    material, successor = stage.material, stage.material.successor
    chosen = np.random.default_rng(_SEED).permutation(len(material.entries))[:_SAMPLE]
    sample = PairedSample(Metric.COSINE, material.vectors[chosen], successor.vectors[chosen], *successor.samples)
    made = kit.kit(sample)
    stage.say(f"planned on a sample: from {OLD} to {NEW}")
    for line in [*findings.summary(made.findings), *findings.rows_table(made.report)]:
        stage.say(f"  {escape(line)}")
    plan = UpgradePlan(
        new_model=embed.NEW_MODEL,
        strategy=made.strategy,
        calibration=made.calibration,
        bridge=made.bridge,
        gallery_map=made.gallery_map,
        reverse=made.reverse,
        anchors=made.anchors,
        report=made.report_json,
        refused=made.refused,
        uncertainty=made.uncertainty,
    )
    return client.upgrade_plan(COLLECTION, plan)


async def _upgrade(stage: Stage, upgrade: Upgrade, clients: list[Client]) -> None:
    cast, client = stage.cast, clients[0]
    old = Traffic(COLLECTION, old_questions(stage), _searchers(stage), OLD)
    new = Traffic(COLLECTION, _new_questions(stage, upgrade), _searchers(stage), NEW)
    async with old:
        await old.more(_SEARCHES_BETWEEN, cast.patience_s)
        await asyncio.to_thread(client.upgrade_start, COLLECTION)
        await reached(stage, client, UpgradeState.BACKFILLING)
        async with new:
            await _write_newcomers(stage, client)
            await _reembed(stage, upgrade, clients, (old, new))
            await _cut_over(stage, client)
            await old.more(_SEARCHES_BETWEEN, cast.patience_s)
            await new.more(_SEARCHES_BETWEEN, cast.patience_s)
    failures = [*old.failures, *new.failures]
    # An answer in between cannot be right or wrong, but it can be incomplete.
    failed = len(failures) + new.wrong
    measured = f"{old.ended:,} searches of {OLD}, {new.ended:,} of {NEW}, {failed} failed"
    if failures:
        measured += f", the first: {failures[0]}"
    stage.checks.add(Promise.BOTH_SERVED, bool(old.answered and new.answered) and not failed, measured)
    tell_old(stage, old)


def tell_old(stage: Stage, old: Traffic) -> None:
    right = old.answered - old.wrong
    stage.checks.add(Promise.OLD_RIGHT, 0 < right == old.answered, f"{right:,} of {old.answered:,} answers")


def old_questions(stage: Stage) -> list[AskedAmidUpgrade]:
    assert stage.exact is not None  # the questions were answered in an earlier scene
    pairs = zip(stage.material.question_vectors, stage.exact.ids, strict=True)
    return [AskedAmidUpgrade(vector, list(ids)) for vector, ids in pairs]


def _new_questions(stage: Stage, upgrade: Upgrade) -> list[AskedAmidUpgrade]:
    pairs = zip(stage.material.question_vectors, stage.material.successor.question_vectors, strict=True)
    return [AskedAmidUpgrade(_query(upgrade, old, new)) for old, new in pairs]


def _query(upgrade: Upgrade, old: Vectors, new: Vectors) -> Vectors | dict[str, Vectors]:
    """What the strategy needs of a client of the new model."""
    return {OLD: old, NEW: new} if OLD in upgrade.query_vectors else new


def _searchers(stage: Stage) -> list[AsyncClient]:
    return [stage.cast.searcher(stage.cluster.addresses) for _ in range(max(1, stage.cast.searchers // 2))]


async def reached(stage: Stage, client: Client, wanted: UpgradeState) -> None:
    """Waits until the upgrade is there. Raises DeadlineExceeded when that takes too long."""
    deadline = time.monotonic() + stage.cast.patience_s
    while True:
        upgrade = (await asyncio.to_thread(client.upgrade_status, COLLECTION)).upgrade
        if upgrade.state is wanted:
            stage.say(f"the upgrade is {wanted}")
            return
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"the upgrade is {upgrade.state}, not {wanted}: {upgrade.waits_for}")
        await asyncio.sleep(_POLL_S)


async def _write_newcomers(stage: Stage, client: Client) -> None:
    """Clients of the new model write documents that have no other vector."""
    entries = stage.material.successor.newcomers
    ids, texts = [entry.id for entry in entries], [entry.text for entry in entries]
    vectors = {NEW: stage.material.successor.embed(ids, texts)}
    attributes = [entry.attributes for entry in entries]
    await asyncio.to_thread(
        client.upsert, COLLECTION, ids, vectors, attributes=attributes, texts=texts, acknowledgement="searchable"
    )
    stage.say(f"clients of the new model wrote {len(ids)} documents")


async def _reembed(stage: Stage, upgrade: Upgrade, clients: list[Client], traffic: tuple[Traffic, Traffic]) -> None:
    """Workers re-embed all documents; what clients of the new model find is measured on the way."""
    material, successor = stage.material, stage.material.successor
    newcomers = [entry.id for entry in successor.newcomers]
    new_vectors = successor.embed(newcomers, [entry.text for entry in successor.newcomers])
    truth = FullReembedding.of(
        [*material.ids, *newcomers], np.concatenate([successor.vectors, new_vectors]), successor.probes[1]
    )
    old_alone = truth.recall_of(material.vectors, successor.probes[0])
    stage.say(
        f"what clients of {NEW} find of what full re-embedding gives, recall@{K} (the old model: {old_alone:.3f})"
    )
    query = _query(upgrade, *successor.probes)

    async def measured(fraction: float) -> Point:
        found = await asyncio.to_thread(clients[0].search_batch, COLLECTION, query, K, model=NEW)
        point = Point(fraction, truth.recall(found), own=1 - float(found.projected.mean()))
        failed = sum(len(one.failures) for one in traffic)
        stage.say(
            f"  {fraction:4.0%} re-embedded  {'█' * round(30 * point.recall):<30} {point.recall:.3f}   {point.own:4.0%} of "
            f"hits by own vectors; {sum(one.ended for one in traffic):,} searches, {failed} failed"
        )
        return point

    documents = len(material.entries)
    curve = [await measured(0.0)]
    async with Reembedding(clients, successor.embed, documents / stage.cast.backfill_s) as workers:
        for fraction in FRACTIONS:
            await workers.reach(int(fraction * documents), stage.cast.patience_s)
            curve.append(await measured(workers.written / documents))
    shown = " → ".join(f"{point.recall:.2f}" for point in curve)
    stage.checks.add(Promise.CURVE, quality.keeps_its_promise(curve, old_alone), f"{shown}, {old_alone:.2f} by the old")
    stage.checks.add(
        Promise.REEMBEDDED, curve[-1].recall >= quality.MIN_AT_THE_END, f"recall@{K} {curve[-1].recall:.3f}"
    )


async def _cut_over(stage: Stage, client: Client) -> None:
    await asyncio.to_thread(client.upgrade_cut_over, COLLECTION)
    serving = (await asyncio.to_thread(client.collection, COLLECTION)).serving_model
    stage.say(f"cut over: requests that name no model mean {serving}")
    stage.checks.add(Promise.CUT_OVER, serving == NEW, serving)
    assert stage.exact is not None
    found = await asyncio.to_thread(
        client.search_batch, COLLECTION, stage.material.successor.question_vectors, K, model=NEW
    )
    for question, before, after in zip(stage.material.questions, stage.exact.ids[:, 0], found.ids[:, 0], strict=True):
        if before != after:
            stage.say(f"  [cyan]{escape(question)}[/cyan]: {escape(str(before))} → [bold]{escape(str(after))}[/bold]")
