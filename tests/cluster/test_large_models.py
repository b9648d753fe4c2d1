"""An upgrade between models of many dimensions, whose artifacts are more than a message may hold."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from harness.processes import restart
from harness.waiting import until, until_empty

from kintsugi import AsyncClient, Model
from kintsugi.keys import Keys
from kintsugi.metrics import Metric
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.projection import Affine, Kind
from kintsugi.redis_client import connect
from kintsugi.registry.artifacts import ArtifactCache
from kintsugi.sdk.upgrade_types import UpgradePlan

pytestmark = pytest.mark.cluster

OLD, NEW, COUNT = 1024, 1536, 120
REPORT = b"{}"
# Rows of length 1 at right angles: what it maps there, its transpose maps back.
TURN = np.linalg.qr(np.random.default_rng(0).standard_normal((NEW, OLD)))[0].T.astype(np.float32)
DOCUMENTS = np.random.default_rng(1).standard_normal((COUNT, OLD)).astype(np.float32)


def packed(weights: np.ndarray) -> bytes:
    return artifact.pack(Affine(Kind.RIDGE, Metric.COSINE, weights, np.zeros(weights.shape[1], np.float32)))


def make_plan() -> UpgradePlan:
    """With all artifacts that a plan may have, each another one."""
    sample = np.random.default_rng(2).standard_normal((400, OLD)).astype(np.float32)
    back = np.ascontiguousarray(TURN.T)
    return UpgradePlan(
        new_model=Model("new", NEW),
        strategy="gallery-map",
        calibration="quantiles",
        reverse=packed(back * np.float32(2)),
        anchors=anchors_file.pack(Anchors(sample, sample @ TURN)),
        report=REPORT,
        bridge=packed(back),
        gallery_map=packed(TURN),
    )


async def finds_all(client: AsyncClient) -> None:
    """By either model's queries; of those of the new one, even documents are found by their mapped vectors."""
    for place in range(4):
        for model, query in (("new", DOCUMENTS[place] @ TURN), ("old", DOCUMENTS[place])):
            found = await client.search("docs", query, 5, model=model)
            assert found.coverage.complete
            best = found.hits[0]
            assert (best.id, best.projected) == (place, model == "new" and place % 2 == 0)


async def lose_artifacts(folder: Path, redis_url: str, artifacts: set[str]) -> None:
    """Redis and the server of this folder, which is down, lose the artifacts."""
    shutil.rmtree(folder)
    redis = connect(redis_url)
    for digest in artifacts:
        assert await redis.delete(Keys().artifact(digest)) == 1
    await redis.aclose()


async def test_large_models_are_upgraded(new_cluster):
    """Planned, started, mapped, and searched by both models. A shard server that was killed takes from its peer what neither it
    nor Redis has any more, and Redis gets it back; one that is killed later goes on with what it holds."""
    cluster = new_cluster(servers=2)
    plan = make_plan()
    parts = {
        artifact.digest(part): part for part in (plan.bridge, plan.gallery_map, plan.reverse, plan.anchors, REPORT)
    }
    assert sum(map(len, parts.values())) > 16 * 2**20
    folders = [cluster.data_of(f"shard-{number}") / "artifacts" for number in range(2)]

    def all_held() -> bool:
        return all((folder / digest).is_file() for folder in folders for digest in parts)

    async with AsyncClient(cluster.addresses, timeout_s=30) as client:
        await client.create_collection("docs", Model("old", OLD), shards=1, replicas=2)
        await client.bulk_upsert("docs", range(COUNT), DOCUMENTS, acknowledgement="searchable", progress=False)
        await client.upgrade_plan("docs", plan)
        await until(all_held, "both shard servers hold the artifacts")
        cluster.kill("shard-1")
        await lose_artifacts(folders[1], cluster.redis_url, set(parts))
        await restart(cluster, "shard-1")
        await until(all_held, "the restarted shard server has the artifacts from its peer")

        await client.upgrade_start("docs")

        async def not_mapped() -> str:
            upgrade = (await client.upgrade_status("docs")).upgrade
            return "" if upgrade.state == "backfilling" else f"the upgrade is {upgrade.state}: {upgrade.waits_for}"

        await until_empty(not_mapped)
        odd = range(1, COUNT, 2)
        vectors = {"old": DOCUMENTS[1::2], "new": DOCUMENTS[1::2] @ TURN}
        await client.upsert("docs", odd, vectors, acknowledgement="searchable")
        await finds_all(client)
        cluster.kill("shard-0")
        await finds_all(client)
        await restart(cluster, "shard-0")
        cluster.kill("shard-1")
        await finds_all(client)
    redis = connect(cluster.redis_url)
    cache = ArtifactCache(redis, Keys())
    assert {digest: await cache.get(digest) for digest in parts} == parts
    assert {await redis.ttl(Keys().artifact(digest)) for digest in parts} == {-1}
    await redis.aclose()
