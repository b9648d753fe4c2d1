"""What a collection's upgrade must not take in: bad pairs, other spaces, forged artifacts, vectors of what has changed."""

import dataclasses

import numpy as np
import pytest
from harness.upgraded import EMBED, NEW, command, created, text_of
from harness.waiting import until_empty

from kintsugi import AsyncClient, FailedPrecondition, InvalidArgument, Model, NotFound
from kintsugi.metrics import Metric
from kintsugi.projections import artifact
from kintsugi.projections.kit import kit
from kintsugi.projections.projection import Affine, Kind
from kintsugi.projections.sample import PairedSample
from kintsugi.sdk.upgrade_types import UpgradePlan

pytestmark = pytest.mark.cluster

TEXTS = [text_of(number, 10**6) for number in range(600)]
FAILED = 1


def plan_of(made, dimension=NEW) -> UpgradePlan:
    return UpgradePlan(
        new_model=Model("new", dimension),
        strategy=made.strategy,
        calibration=made.calibration,
        bridge=made.bridge,
        gallery_map=made.gallery_map,
        reverse=made.reverse,
        anchors=made.anchors,
        report=made.report_json,
        refused=made.refused,
    )


async def planned_with_shuffled_pairs(address, folder, *options) -> str:
    """What the command says when it fails."""
    shuffled = np.random.default_rng(5).permutation(EMBED["new"](TEXTS))
    np.savez(folder / "shuffled.npz", old_documents=EMBED["old"](TEXTS), new_documents=shuffled)
    arguments = "plan", "docs", "--model", "new", "--dimension", NEW, "--sample", "shuffled.npz", *options
    process = await command(address, folder, *arguments)
    _, told = await process.communicate()
    assert process.returncode == FAILED
    return told.decode()


async def refuses_pairs(client, address, folder) -> None:
    """What such pairs teach finds no more than chance does: the planner says so, and the cluster to whoever forces it."""
    told = await planned_with_shuffled_pairs(address, folder)
    assert "with --force only the cluster's own checks can refuse it" in told
    told = await planned_with_shuffled_pairs(address, folder, "--force")
    assert "of the anchors among their 10 nearest" in told
    assert "which chance may find" in told
    with pytest.raises(NotFound):
        await client.upgrade_status("docs")


async def refuses_plans(client, made) -> None:
    """Dimensions, damage and forgery, each by the name of its field; also when they are forced."""
    forged = Affine(Kind.RIDGE, Metric.COSINE, np.random.default_rng(7).standard_normal((NEW, 16)).astype(np.float32),
                    np.zeros(16, np.float32))  # fmt: skip
    damaged = bytearray(made.reverse)
    damaged[len(damaged) // 2] ^= 1
    good = plan_of(made)
    for plan, match in (
        (
            plan_of(made, NEW + 1),
            rf"plan\.anchors has new vectors of dimension {NEW}, must have {NEW + 1}, that of new",
        ),
        (dataclasses.replace(good, reverse=bytes(damaged)), r"plan\.reverse does not match its checksum"),
        (dataclasses.replace(good, reverse=artifact.pack(forged)), r"plan\.reverse finds .* which chance may find"),
        (
            dataclasses.replace(good, reverse=good.anchors),
            r"plan\.reverse is 'kintsugi-anchors' version 1, must be 'kintsugi-projection'",
        ),
    ):
        with pytest.raises(InvalidArgument, match=match):
            await client.upgrade_plan("docs", plan, force=True)
    with pytest.raises(FailedPrecondition, match="the report refuses the upgrade from old to new"):
        await client.upgrade_plan("docs", dataclasses.replace(good, refused=True))
    with pytest.raises(NotFound):
        await client.upgrade_status("docs")


async def refuses_stale_vectors(client) -> None:
    """A document that was rewritten or deleted since it was handed out gets no vector; again with the same request."""
    handed = (await client.next_documents("docs", 20)).documents
    changed, gone = handed[3], handed[7]
    await client.upsert("docs", [changed.id], {"old": EMBED["old"](["changed"])}, texts=["changed"])
    await client.delete("docs", [gone.id])
    ids, versions = [one.id for one in handed], [one.version for one in handed]
    vectors = EMBED["new"]([one.text for one in handed])
    for _ in range(2):
        put = await client.put_vectors("docs", "new", ids, versions, vectors, request_id="once")
        assert (put.written, put.stale, put.missing) == (18, 1, 1)
    found = (await client.get("docs", [changed.id, gone.id, handed[0].id], vectors=True)).documents
    assert {one.id: set(one.vectors) for one in found} == {changed.id: {"old"}, handed[0].id: {"old", "new"}}
    with pytest.raises(InvalidArgument, match=rf"block.* {NEW + 1}.* {NEW}"):
        await client.put_vectors("docs", "new", ids[:1], versions[:1], np.ones((1, NEW + 1), np.float32))
    with pytest.raises(FailedPrecondition, match="no model 'other'.*old, new|other.*old.*new"):
        await client.put_vectors("docs", "other", ids[:1], versions[:1], vectors[:1])


async def test_what_an_upgrade_must_not_take_in_is_refused(new_cluster, tmp_path):
    """With its status, its field and the reason; what is good goes through afterwards, and nothing bad has left a trace."""
    cluster = new_cluster(servers=1)
    made = kit(PairedSample(Metric.COSINE, EMBED["old"](TEXTS), EMBED["new"](TEXTS)))
    async with AsyncClient(cluster.addresses, timeout_s=30) as client:
        await created(client, "docs", 100, shards=2)
        await refuses_pairs(client, cluster.address, tmp_path)
        await refuses_plans(client, made)
        await client.upgrade_plan("docs", plan_of(made))
        with pytest.raises(FailedPrecondition, match="old"):
            await client.search("docs", EMBED["new"]([text_of(0, 0)])[0], model="new")
        await client.upgrade_start("docs")

        async def problem() -> str:
            state = str((await client.upgrade_status("docs")).upgrade.state)
            return "" if state == "backfilling" else f"the upgrade is {state}"

        await until_empty(problem)
        await refuses_stale_vectors(client)
        await client.upgrade_rollback("docs")
        with pytest.raises(FailedPrecondition, match="'new', which is retired, .* model old"):
            await client.put_vectors("docs", "new", [0], [1], np.ones((1, NEW), np.float32))
