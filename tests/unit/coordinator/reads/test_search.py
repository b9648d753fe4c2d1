"""Searching over real gRPC connections to fake shard servers: routing, retries, coverage, tokens, batching."""

import asyncio

import numpy as np
import pytest

from coordinator.load import HedgeSettings
from coordinator.reading import ReadSettings
from kintsugi import columns
from kintsugi.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StalePlan,
    Unavailable,
)
from kintsugi.position import Position
from kintsugi.registry.records import EpochStart
from kintsugi.tokens import Token
from kintsugi.v1 import search_pb2, types_pb2

QUERY = [1.0, 2.0, 0.0, -1.0]


def request(values=QUERY, *, collection="docs", model="", **options):
    vector = search_pb2.QueryVector(model=model, values=search_pb2.FloatList(values=values))
    return search_pb2.SearchRequest(
        collection=collection, vectors=[vector], options=search_pb2.SearchOptions(**options)
    )


def batch_request(matrix, **options):
    vectors = types_pb2.ModelVectors(block=columns.pack_vectors(matrix))
    return search_pb2.SearchBatchRequest(
        collection="docs", vectors=[vectors], options=search_pb2.SearchOptions(**options)
    )


def found(response):
    return [(columns.unpack_id(hit.id, "id"), hit.score) for hit in response.hits]


async def test_a_search_finds_the_best_of_all_shards(world, context, make_documents, oracle):
    """The answer equals an exact search over all documents, ties by id, with full coverage."""
    await world.start([["a"], ["b"], ["a"]])
    documents = make_documents(60)
    world.put(documents)
    response = await world.reading().search_service.Search(request(k=20), context())
    assert found(response) == oracle(documents, np.array(QUERY, np.float32), 20)
    coverage = response.coverage
    assert (coverage.shards_total, coverage.shards_answered, coverage.documents_total) == (3, 3, 60)
    assert (coverage.documents_covered, coverage.models[0].model, coverage.models[0].documents) == (60, "m1", 60)


async def test_a_batch_answers_each_query_in_columns(world, context, make_documents, oracle):
    """The hits of a batch are those of its queries, one after the other."""
    await world.start([["a"], ["b"]])
    documents = make_documents(30)
    world.put(documents)
    matrix = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float16)
    response = await world.reading().search_service.SearchBatch(batch_request(matrix, k=7), context())
    expected = [hit for query in matrix for hit in oracle(documents, query.astype(np.float32), 7)]
    assert columns.unpack_ids(response.ids, "ids") == [doc_id for doc_id, _ in expected]
    np.testing.assert_allclose(columns.unpack_f64(response.scores, "scores"), [score for _, score in expected])
    assert list(response.counts) == [7] * 5
    assert response.model == "m1"


async def test_options_that_only_shards_understand_reach_them(world, context, make_documents):
    """How hard a search tries is for the index to act on."""
    await world.start([["a"], ["b"]])
    world.put(make_documents(5))
    await world.reading().search_service.Search(request(oversampling=4, ef_search=70), context())
    for server in "ab":
        (asked,) = world.replica(server, "ab".index(server)).requests
        assert (asked.oversampling, asked.ef_search) == (4, 70)


async def test_an_empty_collection_answers_nothing(world, context):
    """No documents is no error."""
    await world.start([["a"], ["b"]])
    response = await world.reading().search_service.Search(request(), context())
    assert not response.hits
    assert response.coverage.shards_answered == 2


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (request(k=1001), "options.k"),
        (request(oversampling=0.5), "options.oversampling"),
        (request(oversampling=float("nan")), "options.oversampling"),
        (request(ef_search=10_001), "options.ef_search"),
        (request(min_coverage=1.5), "options.min_coverage"),
        (request(min_coverage=float("nan")), "options.min_coverage"),
        (request(at_least=b"nonsense"), "options.at_least"),
        (request(fields=types_pb2.DocumentFields(vectors=True)), "options.fields.vectors"),
        (request([1.0] * 3), "vectors[0].values"),
        (request([1.0, 2.0, float("inf"), 0.0]), "vectors[0]"),
        (search_pb2.SearchRequest(collection="docs"), "vectors"),
        (search_pb2.SearchRequest(collection="docs", vectors=[search_pb2.QueryVector()]), "vectors[0]"),
        (
            search_pb2.SearchRequest(collection="docs", vectors=[search_pb2.QueryVector(data=b"123")]),
            "vectors[0].data",
        ),
    ],
)
async def test_a_bad_field_is_named(world, context, wrong, field):
    """INVALID_ARGUMENT carries the path of the field, and no shard is asked."""
    await world.start([["a"]])
    with pytest.raises(InvalidArgument) as caught:
        await world.reading().search_service.Search(wrong, context())
    assert caught.value.field == field
    assert not world.replica("a", 0).requests


async def test_a_bad_batch_is_named(world, context):
    """A batch names the row at fault, its count and its dimension."""
    await world.start([["a"]])
    service = world.reading().search_service
    matrix = np.ones((3, 4), np.float32)
    matrix[2, 1] = np.nan
    for bad, field in [
        (matrix, "vectors[0].block[2]"),
        (np.ones((257, 4), np.float32), "vectors[0].block.count"),
        (np.ones((1, 5), np.float32), "vectors[0].block.dimension"),
    ]:
        with pytest.raises(InvalidArgument) as caught:
            await service.SearchBatch(batch_request(bad), context())
        assert caught.value.field == field


async def test_an_unknown_model_names_both(world, context):
    """FAILED_PRECONDITION tells the model asked for and the models there are."""
    await world.start([["a"]])
    with pytest.raises(FailedPrecondition, match="no model m9, its models are: m1"):
        await world.reading().search_service.Search(request(model="m9"), context())


async def test_an_unknown_collection_is_not_found_without_load_on_redis(world, context):
    """The registry is read again for the first request only."""
    await world.start([["a"]])
    service = world.reading().search_service
    for _ in range(20):
        with pytest.raises(NotFound, match="no collection nope"):
            await service.Search(request(collection="nope"), context())
    assert world.registry.refreshes == 1


async def test_a_collection_created_elsewhere_a_moment_ago_is_found(world, context):
    """An unknown name refreshes the view before it is refused."""
    await world.start([["a"]])
    world.registry.pending, world.registry.view = world.registry.view, world.view(0)
    del world.registry.view.collections_by_name["docs"]
    response = await world.reading().search_service.Search(request(), context())
    assert response.coverage.shards_answered == 1


async def test_without_a_view_searches_are_unavailable(world, context):
    """A coordinator that never saw the registry says so."""
    with pytest.raises(Unavailable, match="has not read the registry"):
        await world.reading().search_service.Search(request(), context())


async def test_a_refused_connection_means_another_replica_at_once(world, context, make_documents):
    """Every search is answered while one of two servers is dead, long before any lease ends."""
    await world.start([["a", "b"], ["b", "a"]])
    world.put(make_documents(20))
    service = world.reading().search_service
    await world.servers["a"].stop()
    for _ in range(10):
        response = await service.Search(request(), context(5))
        assert response.coverage.shards_answered == 2


@pytest.mark.parametrize(
    "error", [Unavailable("opening"), NotFound("gone"), Internal("bug"), ResourceExhausted("full", retry_delay_s=0.1)]
)
async def test_a_failing_replica_is_replaced(world, context, make_documents, error):
    """What one replica cannot do, another one of the shard does."""
    await world.start([["a", "b"]])
    world.put(make_documents(5))
    world.replica("a", 0).error = error
    service = world.reading().search_service
    for _ in range(4):
        assert len((await service.Search(request(), context())).hits) == 5
    # For how long the other one is avoided is a matter of time: see test_load.py.
    assert world.replica("a", 0).requests
    assert len(world.replica("b", 0).requests) == 4


async def test_a_silent_replica_gets_a_competitor(world, context, make_documents):
    """A replica that does not answer does not hold up the search."""
    await world.start([["a", "b"]])
    world.put(make_documents(5))
    world.replica("a", 0).answering.clear()
    reading = world.reading(ReadSettings(hedging=HedgeSettings(first_delay_s=0.02)))
    response = await reading.search_service.Search(request(), context())
    assert len(response.hits) == 5
    assert len(world.replica("a", 0).requests) == len(world.replica("b", 0).requests) == 1


async def test_second_tries_are_bounded_unless_the_replica_is_silent(world, context, make_documents):
    """With no share left, a second try waits until the replica has been silent for long."""
    await world.start([["a", "b"]])
    world.put(make_documents(5))
    world.replica("a", 0).answering.clear()
    hedging = HedgeSettings(share=0, burst=0, first_delay_s=0.01, max_delay_s=0.2)
    started = asyncio.get_running_loop().time()
    response = await world.reading(ReadSettings(hedging=hedging)).search_service.Search(request(), context())
    assert len(response.hits) == 5
    assert asyncio.get_running_loop().time() - started >= 0.2


async def test_a_missing_shard_is_an_error_that_names_it(world, context, make_documents):
    """Without permission for partial results: UNAVAILABLE with collection, shard, member and reason."""
    await world.start([["a"], ["b"]])
    world.put(make_documents(20))
    world.replica("b", 1).error = Unavailable("the replica is opening")
    with pytest.raises(Unavailable, match="shard 1 of collection docs did not answer: b: the replica is opening"):
        await world.reading().search_service.Search(request(), context())


async def test_a_missing_shard_is_reported_when_allowed(world, context, make_documents):
    """With min_coverage the coverage lists the failure, and counts the shard with its last known documents."""
    await world.start([["a"], ["b"]])
    world.put(make_documents(20))
    service = world.reading().search_service
    await service.Search(request(), context())
    missing = len(world.replica("b", 1).documents)
    world.replica("b", 1).error = Unavailable("the replica is opening")
    coverage = (await service.Search(request(min_coverage=0.5), context())).coverage
    assert (coverage.shards_total, coverage.shards_answered) == (2, 1)
    assert (coverage.documents_total, coverage.documents_covered) == (20, 20 - missing)
    assert (coverage.failures[0].shard, coverage.failures[0].code) == (1, "UNAVAILABLE")
    with pytest.raises(Unavailable):
        await service.Search(request(min_coverage=0.6), context())


async def test_all_shards_missing_is_always_an_error(world, context):
    """Partial permission never means an empty answer from nobody."""
    await world.start([["a"], ["b"]])
    for member, shard in (("a", 0), ("b", 1)):
        world.replica(member, shard).error = Unavailable("down")
    with pytest.raises(Unavailable, match="shard 0 and 1 more of collection docs"):
        await world.reading().search_service.Search(request(min_coverage=0.01), context())


async def test_a_silent_shard_leaves_time_for_a_partial_answer(world, context, make_documents):
    """A shard that never answers is left out within the deadline when that is allowed, an error otherwise."""
    await world.start([["a"], ["b"]])
    world.put(make_documents(20))
    world.replica("b", 1).answering.clear()
    service = world.reading().search_service
    response = await service.Search(request(min_coverage=0.5), context(0.5))
    assert response.coverage.failures[0].code == "DEADLINE_EXCEEDED"
    with pytest.raises(DeadlineExceeded, match="shard 1 of collection docs"):
        await service.Search(request(), context(0.5))


async def test_a_shard_without_replica_in_sync_is_named(world, context):
    """No candidate at all is a missing shard like any other."""
    await world.start([["a"], ["b"]])
    world.shards[1] = []
    world.registry.view = world.view(2)
    with pytest.raises(Unavailable, match="shard 1 of collection docs did not answer: it has no replica in sync"):
        await world.reading().search_service.Search(request(), context())


async def test_a_stale_plan_refreshes_and_retries_once(world, context, make_documents):
    """A replica that knows a newer revision makes the coordinator read the registry and ask again."""
    await world.start([["a"]])
    world.put(make_documents(5))
    replica = world.replica("a", 0)
    replica.error = StalePlan("model m1 is served from revision 2 on", revision=2)
    world.registry.pending = world.view(2)
    refresh = world.registry.refresh

    async def refresh_and_heal():
        await refresh()
        replica.error = None

    world.registry.refresh = refresh_and_heal
    assert len((await world.reading().search_service.Search(request(), context())).hits) == 5
    assert [r.registry_revision for r in replica.requests] == [1, 2]


async def test_a_plan_that_stays_stale_is_unavailable(world, context):
    """One retry, then the error names shard and reason."""
    await world.start([["a"]])
    world.replica("a", 0).error = StalePlan("not served here", revision=2)
    with pytest.raises(Unavailable, match="shard 0 of collection docs did not answer: a: not served here"):
        await world.reading().search_service.Search(request(), context())
    assert len(world.replica("a", 0).requests) == 2


async def test_a_moved_replica_is_found_after_a_refresh(world, context, make_documents):
    """When all replicas of the plan refuse, a newer registry may name others."""
    await world.start([["a"], ["b"]])
    world.put(make_documents(20))
    world.servers["c"] = world.servers.pop("a")
    world.registry.pending = None
    await world.servers["b"].stop()
    fresh = type(world.servers["c"])()
    fresh.replicas = world.servers["b"].replicas
    await fresh.start()
    world.servers["b"] = fresh
    world.shards = [["c"], ["b"]]
    world.registry.pending = world.view(2)
    response = await world.reading().search_service.Search(request(), context())
    assert response.coverage.documents_covered == 20


async def test_a_token_travels_as_the_shards_position(world, context):
    """Each shard gets its own position; shards the token does not name get none."""
    await world.start([["a"], ["b"]])
    token = Token.of("uid1", [(1, Position(1, 9, b"d" * 20))])
    await world.reading().search_service.Search(request(at_least=token.encode()), context())
    assert not world.replica("a", 0).requests[0].HasField("at_least")
    assert world.replica("b", 1).requests[0].at_least.seq == 9


async def test_a_token_of_a_discarded_write_aborts(world, context):
    """Recovery discarded what the token names: ABORTED, with or without partial results, from view or replica."""
    await world.start([["a"], ["b"]])
    world.epochs = (EpochStart(1, 0), EpochStart(2, 5))
    world.registry.view = world.view(2)
    service = world.reading().search_service
    discarded = Token.of("uid1", [(0, Position(1, 9, b""))]).encode()
    with pytest.raises(Aborted, match="discarded the write 1-9"):
        await service.Search(request(at_least=discarded, min_coverage=0.1), context())
    world.replica("b", 1).error = Aborted("discarded")
    with pytest.raises(Aborted, match="shard 1 of collection docs"):
        await service.Search(request(min_coverage=0.1), context())


async def test_a_token_of_another_collection_is_refused(world, context):
    """INVALID_ARGUMENT names the field."""
    await world.start([["a"]])
    token = Token.of("other", [(0, Position(1, 1, b""))]).encode()
    with pytest.raises(InvalidArgument) as caught:
        await world.reading().search_service.Search(request(at_least=token), context())
    assert caught.value.field == "options.at_least"


async def test_concurrent_searches_share_messages_and_a_lone_one_leaves_at_once(world, context, make_documents, oracle):
    """While messages are in flight, queries of one plan gather; each gets its own hits."""
    await world.start([["a"]])
    documents = make_documents(30)
    world.put(documents)
    replica = world.replica("a", 0)
    replica.answering.clear()
    reading = world.reading()
    queries = np.random.default_rng(2).normal(size=(40, 4)).astype(np.float32)
    tasks = [
        asyncio.create_task(reading.search_service.Search(request(query.tolist(), k=3), context())) for query in queries
    ]
    await asyncio.wait_for(replica.asked.wait(), 5)
    replica.answering.set()
    for query, response in zip(queries, await asyncio.gather(*tasks), strict=True):
        assert [i for i, _ in found(response)] == [i for i, _ in oracle(documents, query, 3)]
    assert [r.count for r in replica.requests] == [1, 1, 38]
    assert reading.batcher.stats().lanes == 0


async def test_a_full_queue_refuses_at_once(world, context):
    """Beyond the limits: RESOURCE_EXHAUSTED with a retry delay, and the accepted searches are answered."""
    await world.start([["a"]])
    replica = world.replica("a", 0)
    replica.answering.clear()
    reading = world.reading(ReadSettings(max_running=2, max_waiting=3))
    service = reading.search_service
    tasks = [asyncio.create_task(service.Search(request(), context())) for _ in range(5)]
    await asyncio.wait_for(replica.asked.wait(), 5)
    with pytest.raises(ResourceExhausted, match="3 queries are waiting, the bound is 3") as caught:
        await service.Search(request(), context())
    assert caught.value.retry_delay_s > 0
    replica.answering.set()
    assert len(await asyncio.gather(*tasks)) == 5
    assert reading.admission.stats().running == reading.admission.stats().waiting == 0


async def test_a_message_with_too_large_an_answer_is_split(world, context, make_documents):
    """Queries do not fail because of their company; one that is too large alone is told so."""
    await world.start([["a"]])
    world.put(make_documents(30))
    replica = world.replica("a", 0)
    replica.text = "x" * 2**20
    replica.answering.clear()
    service = world.reading().search_service
    fields = types_pb2.DocumentFields(text=True)
    tasks = [asyncio.create_task(service.Search(request(k=10, fields=fields), context())) for _ in range(12)]
    await asyncio.wait_for(replica.asked.wait(), 5)
    replica.answering.set()
    assert [len(response.hits) for response in await asyncio.gather(*tasks)] == [10] * 12
    replica.text = "x" * (5 * 2**20)
    with pytest.raises(ResourceExhausted, match="ask for fewer documents or fields"):
        await service.Search(request(k=10, fields=fields), context())
