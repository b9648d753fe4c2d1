"""Filters, least scores, pages and groups, over real gRPC connections to fake shard servers."""

import asyncio

import numpy as np
import pytest

from kintsugi import columns, ids
from kintsugi.errors import Internal, InvalidArgument, Unavailable
from kintsugi.filters.tree import AllOf, Equals, Exists, Range
from kintsugi.filters.wire import from_message, to_message, value_of_message
from kintsugi.v1 import search_pb2, types_pb2

QUERY = np.array([1.0, 2.0, 0.0, -1.0], np.float32)
LARGE = AllOf((Range("size", at_least=10), Exists("tag")))


def request(**options):
    vector = search_pb2.QueryVector(values=search_pb2.FloatList(values=QUERY.tolist()))
    return search_pb2.SearchRequest(collection="docs", vectors=[vector], options=search_pb2.SearchOptions(**options))


def found(response):
    return [(columns.unpack_id(hit.id, "id"), hit.score) for hit in response.hits]


@pytest.fixture
async def service(world, make_documents):
    """Sixty documents on three shards, of sizes 0 to 59 and with one of three tags, every seventh with none."""
    await world.start([["a"], ["b"], ["a"]])
    documents = make_documents(60)
    world.documents = documents
    world.attributes = {
        doc_id: {"size": place} | ({"tag": f"t{place % 3}"} if place % 7 else {})
        for place, doc_id in enumerate(documents)
    }
    world.put(documents, world.attributes)
    return world.reading().search_service


async def test_a_filter_reaches_every_shard(world, service, context, oracle):
    """The hits are the best of those that fulfil it, and the coverage is that of all documents."""
    response = await service.Search(request(k=7, filter=to_message(LARGE)), context())
    large = {
        d: v for d, v in world.documents.items() if world.attributes[d]["size"] >= 10 and "tag" in world.attributes[d]
    }
    assert found(response) == oracle(large, QUERY, 7)
    assert response.coverage.documents_covered == 60
    for member, shard in [("a", 0), ("b", 1), ("a", 2)]:
        assert from_message(world.replica(member, shard).requests[0].filter) == LARGE


async def test_pages_add_up_to_the_whole(world, service, context, oracle):
    """Each page begins where the one before ended; the last one is short."""
    pages = [found(await service.Search(request(k=25, offset=offset), context())) for offset in (0, 25, 50, 75)]
    assert [len(page) for page in pages] == [25, 25, 10, 0]
    assert [hit for page in pages for hit in page] == oracle(world.documents, QUERY, 60)


async def test_hits_below_the_least_score_are_left_out(world, service, context, oracle):
    """A score equal to the bound is enough, and a least score of 0 is one."""
    best = oracle(world.documents, QUERY, 60)
    for bound in (0.0, best[20][1]):
        response = await service.Search(request(k=60, min_score=bound), context())
        assert found(response) == [hit for hit in best if hit[1] >= bound]


@pytest.mark.parametrize("size", [1, 4])
async def test_groups_stand_one_after_the_other(world, service, context, oracle, size):
    """The best groups of all documents, each with its best hits and its value."""
    response = await service.Search(request(k=2, group_by=search_pb2.GroupBy(attribute="tag", size=size)), context())
    groups = {}
    for doc_id, score in oracle(world.documents, QUERY, 60):
        if tag := world.attributes[doc_id].get("tag"):
            groups.setdefault(tag, []).append((doc_id, score))
    expected = list(groups.items())[:2]
    assert found(response) == [hit for _, hits in expected for hit in hits[:size]]
    assert [value_of_message(hit.group) for hit in response.hits] == [tag for tag, _ in expected for _ in range(size)]


async def test_a_batch_tells_the_group_of_every_hit(world, service, context):
    """Groups come as a column beside the hits of all queries."""
    vectors = types_pb2.ModelVectors(block=columns.pack_vectors(np.stack([QUERY, -QUERY])))
    options = search_pb2.SearchOptions(k=3, group_by=search_pb2.GroupBy(attribute="tag", size=2))
    batch = search_pb2.SearchBatchRequest(collection="docs", vectors=[vectors], options=options)
    response = await service.SearchBatch(batch, context())
    tags = [world.attributes[doc_id]["tag"] for doc_id in columns.unpack_ids(response.ids, "ids")]
    assert list(response.counts) == [6, 6]
    assert [group.text for group in response.groups] == tags


@pytest.fixture
async def split(world):
    """The best group has its second hit on a shard whose own best groups are others."""
    await world.start([["a"], ["b"]])
    on = {
        0: [doc_id for doc_id in range(40) if ids.shard_of(doc_id, 2) == 0],
        1: [d for d in range(40) if ids.shard_of(d, 2) == 1],
    }
    world.best, world.second, others = on[0][0], on[1][0], on[1][1:3]
    documents = {world.best: QUERY * 3, world.second: QUERY, others[0]: QUERY * 2, others[1]: QUERY * 2}
    groups = {world.best: "split", world.second: "split", others[0]: "x", others[1]: "y"}
    world.put(documents, {doc_id: {"tag": tag} for doc_id, tag in groups.items()})
    return world


GROUPS_OF_TWO = {"k": 2, "group_by": search_pb2.GroupBy(attribute="tag", size=2)}


async def test_a_shard_is_asked_again_for_the_rest_of_a_group(split, context):
    """The second hit of the best group is found, and only the shard that may hold it is asked, for that group alone."""
    response = await split.reading().search_service.Search(
        request(filter=to_message(Exists("tag")), **GROUPS_OF_TWO), context()
    )
    assert [hit.id.integer for hit in response.hits][:2] == [split.best, split.second]
    assert len(split.replica("a", 0).requests) == 1
    _, again = split.replica("b", 1).requests
    assert [value_of_message(one) for one in again.only_groups] == ["split"]
    assert (again.k, again.count, from_message(again.filter)) == (1, 1, Exists("tag"))


async def test_a_shard_that_fails_when_asked_again_counts_as_missing(split, context):
    """What it said before stays; without leave to miss it the search fails."""
    replica = split.replica("b", 1)
    service = split.reading().search_service

    async def enter(message):
        replica.requests.append(message)
        if message.only_groups:
            raise Unavailable("gone")

    replica.enter = enter
    with pytest.raises(Unavailable, match="shard 1 of collection docs did not answer"):
        await service.Search(request(**GROUPS_OF_TWO), context())
    response = await service.Search(request(min_coverage=0.5, **GROUPS_OF_TWO), context())
    assert response.coverage.shards_answered == 1
    assert response.hits[0].id.integer == split.best
    assert len(response.hits) == 2


async def test_a_shard_that_forgets_the_groups_is_a_defect(split, context):
    """Hits without groups are never taken for a grouped answer."""
    server = split.servers["a"]
    answer = server.Search

    async def without_groups(message, context):
        response = await answer(message, context)
        response.ClearField("groups")
        return response

    server.Search = without_groups
    with pytest.raises((Internal, Unavailable)):
        await split.reading().search_service.Search(request(**GROUPS_OF_TWO), context())


async def test_searches_share_messages_only_when_they_ask_the_same(world, service, context):
    """Equal filters travel together; another filter, least score, page or grouping does not."""
    conditions = [to_message(Equals("tag", "t1")), to_message(Equals("tag", "t2")), to_message(Equals("tag", True)),
                  to_message(Equals("tag", 1))]  # fmt: skip
    different = [
        *({"filter": condition} for condition in conditions),
        {"min_score": 0.0},
        {"min_score": 1.0},
        {"offset": 3},
        {"group_by": search_pb2.GroupBy(attribute="tag")},
        {"group_by": search_pb2.GroupBy(attribute="size")},
    ]
    replica = world.replica("b", 1)
    replica.answering.clear()
    searches = [
        asyncio.ensure_future(service.Search(request(k=5, **options), context()))
        for _ in range(6)
        for options in different
    ]
    while len(replica.requests) < 2 * len(different):
        replica.asked.clear()
        await replica.asked.wait()
    replica.answering.set()
    answers = await asyncio.gather(*searches)
    for place in range(len(different)):
        alike = answers[place :: len(different)]
        assert all(answer == alike[0] for answer in alike)
    # Two messages per lane are in flight at once; the four other queries of a lane share the next one.
    assert sorted(message.count for message in replica.requests) == [1] * 2 * len(different) + [4] * len(different)


@pytest.mark.parametrize(
    ("options", "field", "says"),
    [
        ({"filter": {}}, "options.filter", "has no condition"),
        ({"filter": {"range": {"attribute": "a"}}}, "options.filter.range", "has no bound"),
        ({"min_score": float("nan")}, "options.min_score", "is nan, must be finite"),
        ({"min_score": float("-inf")}, "options.min_score", "is -inf, must be finite"),
        ({"offset": 991}, "options.offset", "is 991 with a k of 10, must be at most 1000 together"),
        ({"offset": 1, "k": 1000}, "options.offset", "is 1 with a k of 1000, must be at most 1000 together"),
        ({"offset": 1, "group_by": {"attribute": "a"}}, "options.offset", "is 1, must be 0 with group_by"),
        ({"group_by": {}}, "options.group_by.attribute", "has 0 bytes, must have 1 to 512"),
        ({"group_by": {"attribute": "a", "size": 101}}, "options.group_by.size", "is 101, must be 1 to 100"),
        (
            {"k": 11, "group_by": {"attribute": "a", "size": 100}},
            "options.group_by.size",
            "is 100 with a k of 11, must have a product of at most 1000",
        ),
    ],
)
async def test_an_option_outside_its_bound_is_named(world, context, options, field, says):
    """INVALID_ARGUMENT carries the path of the field, its value and its bound, and no shard is asked."""
    await world.start([["a"]])
    with pytest.raises(InvalidArgument) as caught:
        await world.reading().search_service.Search(request(**options), context())
    assert caught.value.field == field
    assert says in caught.value.message
    assert not world.replica("a", 0).requests
