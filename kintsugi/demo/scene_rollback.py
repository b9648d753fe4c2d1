"""Scene: the upgrade is rolled back under traffic, and everything is compared with before.

Documents that came meanwhile have no vector of the old model. They must be found all the same, and be flagged.
"""

import asyncio
import time

import numpy as np

from kintsugi.demo import scene_restart
from kintsugi.demo.answers import K
from kintsugi.demo.checks import Promise
from kintsugi.demo.scene_upgrade import OLD, old_questions, reached, tell_old
from kintsugi.demo.stage import COLLECTION, Stage, since
from kintsugi.demo.traffic import Traffic
from kintsugi.registry.records import UpgradeState
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.types import BatchResult

_SEARCHES_BETWEEN = 50


def play(stage: Stage) -> None:
    with stage.client() as client:
        asyncio.run(_roll_back(stage, client))
        _compare(stage, client)


async def _roll_back(stage: Stage, client: Client) -> None:
    searchers = [stage.cast.searcher(stage.cluster.addresses) for _ in range(stage.cast.searchers)]
    started = time.monotonic()
    async with Traffic(COLLECTION, old_questions(stage), searchers, OLD) as traffic:
        await asyncio.to_thread(client.upgrade_rollback, COLLECTION)
        await reached(stage, client, UpgradeState.ROLLED_BACK)
        stage.say(f"rolled back in {since(started)}")
        await traffic.more(_SEARCHES_BETWEEN, stage.cast.patience_s)
    failed = f"{traffic.ended:,} of {OLD} during the rollback, {len(traffic.failures)} failed"
    if traffic.failures:
        failed += f", the first: {traffic.failures[0]}"
    stage.checks.add(Promise.BOTH_SERVED, not traffic.failures, failed)
    tell_old(stage, traffic)


def _compare(stage: Stage, client: Client) -> None:
    """With exact searches that name no model, which means the old one again."""
    newcomers = {entry.id for entry in stage.material.successor.newcomers}
    questions = stage.material.question_vectors
    found = client.search_batch(COLLECTION, questions, K + len(newcomers), exact=True)
    stage.checks.add(Promise.OLD_ANSWERS, _are_as_before(stage, found), f"the best {K} of {found.model}")

    read = client.get(COLLECTION, stage.material.ids, attributes=True, text=True, vectors=True)
    different = scene_restart.differing(stage, read.documents)
    flagged = {
        hit.id
        for hit in client.search(COLLECTION, questions[0], K, filter={"module": "kintsugi"}, exact=True)
        if hit.projected
    }
    stage.checks.add(
        Promise.OLD_DOCUMENTS,
        not different and flagged == newcomers,
        f"{scene_restart.how_many(stage, different)}, {len(flagged)} of {len(newcomers)} flagged",
    )


def _are_as_before(stage: Stage, found: BatchResult) -> bool:
    """Whether documents that have an old vector are found as before the upgrade, in order and with their scores."""
    before = stage.exact
    if before is None:
        return False
    for number, (ids, scores) in enumerate(zip(before.ids, before.scores, strict=True)):
        own = [hit for hit in found.hits(number) if not hit.projected][:K]
        if [hit.id for hit in own] != list(ids) or not np.allclose(
            [hit.score for hit in own], scores, rtol=1e-6, atol=0
        ):
            return False
    return True
