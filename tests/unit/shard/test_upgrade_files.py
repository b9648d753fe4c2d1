"""What a shard server needs of the files of an upgrade, by its state."""

import msgspec
import numpy as np
import pytest

from kintsugi.errors import Unavailable
from kintsugi.metrics import Metric, StoredType
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.projection import Affine, Kind
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Collection, Model, Upgrade, UpgradeState
from kintsugi.registry.upgrades import collection_after
from shard.upgrade_files import UpgradeFiles


class Held:
    """Artifacts, by digest."""

    def __init__(self, *files):
        self.files = {artifact.digest(data): data for data in files}
        self.asked = []

    async def get(self, digest):
        self.asked.append(digest)
        if digest not in self.files:
            raise Unavailable(f"artifact {digest} cannot be read")
        return self.files[digest]

    def forget_all_but(self, digests):
        self.files = {digest: data for digest, data in self.files.items() if digest in digests}


REVERSE = artifact.pack(Affine(Kind.RIDGE, Metric.COSINE, np.eye(4, dtype=np.float32), np.zeros(4, np.float32)))
SOME = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
ANCHORS = anchors_file.pack(Anchors(SOME, SOME))
REPORT = b"{}"


def upgrade_in(state, number=1, model=None):
    """The collection and its upgrade, which was started at least, unless it is planned."""
    old, new = Model(1, "old", 4, Metric.COSINE), model or Model(2, "new", 4, Metric.COSINE)
    reverse, anchors, report = map(artifact.digest, (REVERSE, ANCHORS, REPORT))
    record = Upgrade(
        "uid1", number, "old", new, state, Strategy.BRIDGE, Calibration.QUANTILES,
        reverse, "", reverse, anchors, report, 0.9, 0.9, 1, 1,
    )  # fmt: skip
    collection = Collection("uid1", "docs", 1, 1, Metric.COSINE, StoredType.F32, (old,), "old", 1)
    if state is not UpgradeState.PLANNED:
        started = msgspec.structs.replace(record, state=UpgradeState.SERVING_BOTH)
        collection = collection_after(collection, started)
    return collection_after(collection, record), record


@pytest.mark.parametrize("state", [UpgradeState.PLANNED, UpgradeState.FINISHED])
async def test_a_replica_opens_without_files_that_nothing_needs(state):
    """Before the start and after the end, a lost artifact keeps nobody from searching."""
    assert await UpgradeFiles(Held()).loaded(*upgrade_in(state)) is None


@pytest.mark.parametrize("state", [UpgradeState.BACKFILLING, UpgradeState.ROLLED_BACK])
async def test_in_between_a_lost_file_is_told(state):
    """Documents would be missing from searches in silence."""
    with pytest.raises(Unavailable, match="cannot be read"):
        await UpgradeFiles(Held(REVERSE, ANCHORS)).loaded(*upgrade_in(state))


async def test_a_plan_is_fetched_before_its_start():
    """So that the start finds the files here; other states fetch what they load."""
    held = Held(REVERSE, ANCHORS, REPORT)
    files = UpgradeFiles(held)
    await files.fetch_planned(upgrade_in(UpgradeState.PLANNED)[1])
    assert set(held.asked) == set(held.files)
    held.asked.clear()
    for record in (None, upgrade_in(UpgradeState.FINISHED)[1]):
        await files.fetch_planned(record)
    assert held.asked == []
    with pytest.raises(Unavailable):
        await UpgradeFiles(Held()).fetch_planned(upgrade_in(UpgradeState.PLANNED)[1])


async def test_the_same_files_may_serve_another_plan():
    """Of another model: its number counts, not that of the plan before."""
    files = UpgradeFiles(Held(REVERSE, ANCHORS, REPORT))
    first = await files.loaded(*upgrade_in(UpgradeState.BACKFILLING))
    moved = await files.loaded(*upgrade_in(UpgradeState.CUT_OVER))
    assert (first.new_number, moved.reverse is first.reverse) == (2, True)
    third = Model(3, "third", 4, Metric.COSINE)
    assert (await files.loaded(*upgrade_in(UpgradeState.BACKFILLING, 2, third))).new_number == 3


async def test_what_nothing_needs_any_more_is_let_go():
    """At the end of an upgrade, and when its collection is deleted: projections of large models are large."""
    held = Held(REVERSE, ANCHORS, REPORT)
    files, running = UpgradeFiles(held), upgrade_in(UpgradeState.BACKFILLING)
    first = await files.loaded(*running)
    await files.forget_all_but([running[1]])
    assert (await files.loaded(*running)).reverse is first.reverse
    assert await files.loaded(*upgrade_in(UpgradeState.FINISHED)) is None
    second = await files.loaded(*running)
    assert second.reverse is not first.reverse
    await files.forget_all_but([])
    assert held.files == {}
    with pytest.raises(Unavailable):
        await files.loaded(*running)
