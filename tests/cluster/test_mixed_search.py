"""Searches of both models while a collection moves from one to the other, through the whole cluster."""

import numpy as np
import pytest
from harness.waiting import until

from kintsugi import Client, FailedPrecondition, Model
from kintsugi.metrics import Metric
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.linear import procrustes
from kintsugi.sdk.upgrade_types import UpgradePlan

pytestmark = pytest.mark.cluster

TURN = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 16)))[0].astype(np.float32)


def plan(strategy):
    old = np.random.default_rng(1).standard_normal((600, 16)).astype(np.float32)
    new = old @ TURN
    bridge = None if strategy == "both-vectors" else procrustes(Metric.COSINE, new, old)
    gallery_map = procrustes(Metric.COSINE, old, new) if strategy == "gallery-map" else None
    return UpgradePlan(
        Model("new", 16), strategy, "quantiles", procrustes(Metric.COSINE, new, old), Anchors(old[:200], new[:200]), b"{}",
        bridge=bridge, gallery_map=gallery_map,
    )  # fmt: skip


@pytest.mark.parametrize("strategy", ["query-bridge", "gallery-map", "both-vectors"])
async def test_both_models_find_all_documents(new_cluster, strategy):
    """Documents in between are found by either model's vectors and flagged; what clients must give is said and demanded."""
    cluster = new_cluster(servers=2)
    old = np.random.default_rng(2).standard_normal((300, 16)).astype(np.float32)
    new = old @ TURN
    with Client(cluster.address, timeout_s=30) as client:
        client.create_collection("docs", Model("old", 16), shards=2, replicas=1)
        client.bulk_upsert("docs", range(300), old, acknowledgement="searchable")
        client.upgrade_plan("docs", plan(strategy))
        client.upgrade_start("docs")
        await until(lambda: client.upgrade_status("docs").upgrade.state == "backfilling", "both models are served")
        # Every third document gets a new vector only, every third one both.
        client.upsert("docs", range(0, 300, 3), {"new": new[::3]}, acknowledgement="searchable")
        client.upsert("docs", range(1, 300, 3), {"old": old[1::3], "new": new[1::3]}, acknowledgement="searchable")

        place = 5
        if strategy == "both-vectors":
            with pytest.raises(FailedPrecondition, match="needs a query vector of old as well"):
                client.search("docs", new[place], model="new")
        else:
            assert_found(client.search("docs", new[place], 20, model="new", tell_unmigrated=True), new[place], new, 2)
        for exact in (False, True):
            found = client.search("docs", {"new": new[place], "old": old[place]}, 20, exact=exact, tell_unmigrated=True)
            assert_found(found, new[place], new, 2)
        assert {one.model: one.documents for one in found.coverage.models} == {"new": 200, "old": 200}
        assert_found(client.search("docs", old[place], 20, model="old", tell_unmigrated=True), old[place], old, 0)
        batch = client.search_batch("docs", {"new": new[:3], "old": old[:3]}, 1)
        assert batch.ids[:, 0].tolist() == [0, 1, 2]
        assert batch.projected[:, 0].tolist() == [False, False, True]
        assert (batch.model, batch.projected_model) == ("new", "old")


def assert_found(found, query, vectors, lacking):
    """Nearly the exact neighbours, best first; those of one remainder by three are flagged, and told."""
    wanted = np.argsort(-(vectors @ query) / np.linalg.norm(vectors, axis=1))[:20]
    ids = [hit.id for hit in found]
    assert len(ids) == len(set(ids)) == 20
    assert ids[0] == wanted[0]
    assert len(set(ids) & set(wanted.tolist())) >= 16
    assert all(hit.projected == (hit.id % 3 == lacking) for hit in found)
    flagged = {hit.id for hit in found if hit.projected}
    assert flagged
    assert flagged <= set(found.unmigrated)
    assert all(doc_id % 3 == lacking for doc_id in found.unmigrated)
