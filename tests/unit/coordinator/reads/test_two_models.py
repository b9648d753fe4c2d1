"""Searches while a collection is upgraded: which model is searched, by which vectors, and what the answer tells of the other one."""

import numpy as np
import pytest

from coordinator import merge
from coordinator.plan import choose_models
from coordinator.query import check_batch, check_search
from kintsugi import columns
from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.metrics import Metric
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Model, Upgrade, UpgradeState
from kintsugi.v1 import search_pb2, types_pb2

OLD = [1.0, 2.0, 0.0, -1.0]
NEW = [3.0, 1.0]


def upgrade(state=UpgradeState.BACKFILLING, strategy=Strategy.BRIDGE):
    return Upgrade(
        collection_uid="uid1", number=1, old_model="m1",
        new_model=Model(number=2, name="m2", dimension=2, metric=Metric.DOT), state=state, strategy=strategy,
        calibration=Calibration.QUANTILES, bridge="b", gallery_map="", reverse="r", anchors="a", report="p",
        min_migrated=0.99, min_recall=0.95, created_at_us=0, changed_at_us=0,
    )  # fmt: skip


def request(*vectors, **options):
    """`vectors`: pairs of a model's name and numbers."""
    return search_pb2.SearchRequest(
        collection="docs",
        vectors=[search_pb2.QueryVector(model=name, data=np.array(each, "<f4").tobytes()) for name, each in vectors],
        options=search_pb2.SearchOptions(**options),
    )


def batch_request(*vectors, **options):
    return search_pb2.SearchBatchRequest(
        collection="docs",
        vectors=[types_pb2.ModelVectors(model=name, block=columns.pack_vectors(each)) for name, each in vectors],
        options=search_pb2.SearchOptions(**options),
    )


@pytest.fixture
async def upgraded(world, make_documents):
    """Two shards; every document whose id is even has no new vector."""
    await world.start([["a"], ["b"]])
    documents = {doc_id: vector[:2] for doc_id, vector in make_documents(40).items()}
    world.put(documents)
    for shard, member in enumerate("ab"):
        replica = world.replica(member, shard)
        replica.lacking = {doc_id for doc_id in replica.documents if isinstance(doc_id, int) and doc_id % 2 == 0}
    world.registry.view = world.view(1, upgrade=upgrade())
    return world, documents


@pytest.mark.parametrize("names", [("m1", "m2"), ("m2", "m1"), ("", "m2")])
async def test_of_both_models_the_new_one_is_searched(world, names):
    """Two vectors search the new model whatever their order, and an empty name means the serving model."""
    await world.start([["a"]])
    view = world.view(1, upgrade=upgrade())
    asked = choose_models(view, view.collections["uid1"], names)
    assert (asked.model.name, asked.other.name) == ("m2", "m1")
    assert (asked.place, asked.other_place) == (names.index("m2"), 1 - names.index("m2"))


@pytest.mark.parametrize(
    ("state", "left"),
    [(UpgradeState.FINISHED, "m2"), (UpgradeState.FINISHING, "m2"), (UpgradeState.ROLLED_BACK, "m1")],
)
@pytest.mark.parametrize("strategy", list(Strategy))
async def test_a_retired_model_is_left_out_beside_a_live_one(world, state, left, strategy):
    """A client that gives both vectors does not fail when the upgrade ends; one that gives the retired one alone does."""
    await world.start([["a"]])
    view = world.view(1, upgrade=upgrade(state, strategy))
    collection = view.collections["uid1"]
    asked = choose_models(view, collection, ["m1", "m2"])
    assert (asked.model.name, asked.other) == (left, None)
    retired = "m1" if left == "m2" else "m2"
    with pytest.raises(FailedPrecondition) as refused:
        choose_models(view, collection, [retired])
    assert "m1" in refused.value.message
    assert "m2" in refused.value.message


async def test_a_plan_with_both_vectors_needs_both(world):
    """With BOTH_VECTORS the new model cannot be searched by its own vector alone; the old one can."""
    await world.start([["a"]])
    view = world.view(1, upgrade=upgrade(strategy=Strategy.BOTH))
    collection = view.collections["uid1"]
    with pytest.raises(FailedPrecondition, match="needs a query vector of m1 as well") as refused:
        choose_models(view, collection, ["m2"])
    assert refused.value.reason == "BOTH_VECTORS_NEEDED"
    assert choose_models(view, collection, ["m1"]).model.name == "m1"


async def test_two_vectors_must_be_of_two_known_models(world):
    """The same model twice, and a model that is not declared, are refused with the place of the vector."""
    await world.start([["a"]])
    view = world.view(1, upgrade=upgrade())
    collection = view.collections["uid1"]
    with pytest.raises(InvalidArgument, match=r"vectors\[1\].model"):
        choose_models(view, collection, ["m1", ""])
    with pytest.raises(FailedPrecondition) as refused:
        choose_models(view, collection, ["m2", "m3"])
    assert refused.value.field == "vectors[1].model"


@pytest.mark.parametrize("count", [0, 3])
def test_a_search_has_one_or_two_vectors(count):
    """Any other number is refused."""
    with pytest.raises(InvalidArgument, match="must have 1, or 2"):
        check_search(request(*[("m1", OLD)] * count))


def test_blocks_of_two_models_are_of_the_same_queries():
    """Their counts must be equal."""
    blocks = batch_request(("m1", np.ones((3, 4))), ("m2", np.ones((2, 2))))
    with pytest.raises(InvalidArgument, match=r"vectors\[1\].block.count is 2, must be 3"):
        check_batch(blocks)


async def test_both_vectors_reach_the_shards(upgraded, context):
    """Shards get the new model's queries as the queries and the old model's beside them."""
    world, _ = upgraded
    service = world.reading().search_service
    await service.Search(request(("m1", OLD), ("m2", NEW), k=5), context())
    await service.Search(request(("m2", NEW), k=5), context())
    both, alone = world.replica("a", 0).requests
    assert both.model == alone.model == "m2"
    assert np.frombuffer(both.queries, "<f4").tolist() == NEW
    assert np.frombuffer(both.other_queries, "<f4").tolist() == OLD
    assert (alone.other_queries, both.count) == (b"", 1)


async def test_hits_say_their_model_and_whether_they_are_projected(upgraded, context, oracle):
    """Flags keep their hits through the merge of shards, and both models stand in the coverage."""
    world, documents = upgraded
    response = await world.reading().search_service.Search(request(("m2", NEW), k=20), context())
    lacking = world.replica("a", 0).lacking | world.replica("b", 1).lacking
    expected = [doc_id for doc_id, _ in oracle(documents, np.array(NEW, np.float32), 20)]
    assert [columns.unpack_id(hit.id, "id") for hit in response.hits] == expected
    assert [hit.projected for hit in response.hits] == [doc_id in lacking for doc_id in expected]
    assert [hit.model for hit in response.hits] == ["m1" if doc_id in lacking else "m2" for doc_id in expected]
    told = {one.model: one.documents for one in response.coverage.models}
    assert told == {"m2": 40 - len(lacking), "m1": len(lacking)}
    assert not response.HasField("unmigrated")


async def test_a_batch_has_a_column_of_flags(upgraded, context):
    """One byte per hit, and the name of the other model."""
    world, _ = upgraded
    blocks = batch_request(("m2", np.array([NEW, OLD[:2]], np.float32)), k=15)
    response = await world.reading().search_service.SearchBatch(blocks, context())
    lacking = world.replica("a", 0).lacking | world.replica("b", 1).lacking
    found = columns.unpack_ids(response.ids, "ids")
    assert list(response.projected) == [doc_id in lacking for doc_id in found]
    assert response.projected_model == "m1"


async def test_unmigrated_candidates_are_told_when_asked_for(upgraded, context):
    """Those of all shards, each once."""
    world, _ = upgraded
    response = await world.reading().search_service.Search(request(("m2", NEW), k=1, tell_unmigrated=True), context())
    lacking = world.replica("a", 0).lacking | world.replica("b", 1).lacking
    told = columns.unpack_ids(response.unmigrated, "unmigrated")
    assert len(told) == len(set(told))
    assert set(told) == lacking


async def test_groups_keep_their_flags(upgraded, context):
    """Hits of groups are flagged as others are, also after shards were asked twice."""
    world, documents = upgraded
    world.put(documents, {doc_id: {"g": str(index % 3)} for index, doc_id in enumerate(documents)})
    grouped = request(("m1", OLD), ("m2", NEW), k=3, group_by=search_pb2.GroupBy(attribute="g", size=4))
    response = await world.reading().search_service.Search(grouped, context())
    lacking = world.replica("a", 0).lacking | world.replica("b", 1).lacking
    assert len(response.hits) == 12
    assert all(hit.projected == (columns.unpack_id(hit.id, "id") in lacking) for hit in response.hits)
    assert all(asked.other_queries for asked in world.replica("a", 0).requests)


def test_flags_of_some_parts_only():
    """A shard without projected hits sends no flags; merged with one that does, its hits are not projected."""
    ids = merge.Ids(np.arange(4, dtype=np.uint64), np.zeros(4, np.bool_), [])
    counts = np.array([2])
    plain = merge.Hits(counts, ids.take(slice(0, 2)), np.array([0.9, 0.5]), np.ones(2, np.uint64))
    flagged = merge.Hits(
        counts, ids.take(slice(2, 4)), np.array([0.8, 0.6]), np.ones(2, np.uint64), projected=np.array([True, False])
    )
    merged = merge.merge([plain, flagged], 3)
    assert merged.ids.decoded() == [0, 2, 3]
    assert merged.projected.tolist() == [False, True, False]
    assert not len(merge.merge([plain, plain], 3).projected)
