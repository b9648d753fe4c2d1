"""Get, Count and Scroll over real gRPC connections to fake shard servers."""

import pytest

from kintsugi import columns, ids, limits
from kintsugi.errors import InvalidArgument, ResourceExhausted, Unavailable
from kintsugi.position import Position
from kintsugi.tokens import Token
from kintsugi.v1 import documents_pb2, types_pb2


def get_request(doc_ids, **more):
    return documents_pb2.GetRequest(collection="docs", ids=[columns.pack_id(i) for i in doc_ids], **more)


def ids_of(messages):
    return [columns.unpack_id(message, "id") for message in messages]


async def scroll_all(reads, context, limit):
    """All pages of a walk."""
    pages, token = [], b""
    while True:
        request = documents_pb2.ScrollRequest(collection="docs", limit=limit, page_token=token)
        response = await reads.scroll(request, context())
        pages.append(ids_of(document.id for document in response.documents))
        token = response.next_page_token
        if not token:
            return pages


async def test_get_keeps_the_order_of_the_request(world, context, make_documents):
    """Documents come in the order asked for, repeated when asked for twice; what is not there is missing."""
    await world.start([["a"], ["b"], ["a"]])
    documents = make_documents(20)
    world.put(documents)
    wanted = [*reversed(documents), "nope", 999, next(iter(documents))]
    response = await world.reading().document_reads.get(get_request(wanted), context())
    assert ids_of(document.id for document in response.documents) == [i for i in wanted if i in documents]
    assert ids_of(response.missing) == ["nope", 999]


async def test_get_asks_only_the_shards_that_own_the_ids(world, context):
    """A shard that is down does not matter to ids of another one."""
    await world.start([["a"], ["b"]])
    world.put({1: [0, 0, 0, 0]})
    other = 1 - ids.shard_of(1, 2)
    world.replica("ab"[other], other).error = Unavailable("down")
    response = await world.reading().document_reads.get(get_request([1]), context())
    assert ids_of(document.id for document in response.documents) == [1]


async def test_get_checks_its_fields(world, context):
    """Empty, too long and malformed lists of ids are refused by field."""
    await world.start([["a"]])
    reads = world.reading().document_reads
    for request, field in [
        (get_request([]), "ids"),
        (get_request(range(1001)), "ids"),
        (documents_pb2.GetRequest(collection="docs", ids=[types_pb2.DocumentId()]), "ids[0]"),
        (get_request([1], at_least=b"x"), "at_least"),
        (documents_pb2.GetRequest(collection="", ids=[columns.pack_id(1)]), "collection"),
        (documents_pb2.GetRequest(collection="x" * 65, ids=[columns.pack_id(1)]), "collection"),
    ]:
        with pytest.raises(InvalidArgument) as caught:
            await reads.get(request, context())
        assert caught.value.field == field


async def test_get_refuses_an_answer_that_no_message_holds(world, context, make_documents):
    """Documents too large for one message are an error that says what to do."""
    await world.start([["a"], ["b"]])
    world.put(make_documents(60))
    for member, shard in (("a", 0), ("b", 1)):
        world.replica(member, shard).text = "x" * 2**20
    with pytest.raises(ResourceExhausted, match="ask for fewer documents or fields"):
        await world.reading().document_reads.get(get_request(make_documents(60)), context())


async def test_count_adds_up_and_passes_the_token(world, context, make_documents):
    """The count is that of all shards; a missing one is an error that names it."""
    await world.start([["a"], ["b"]])
    world.put(make_documents(31))
    reads = world.reading().document_reads
    token = Token.of("uid1", [(0, Position(1, 4, b"d" * 20))]).encode()
    assert (await reads.count(documents_pb2.CountRequest(collection="docs", at_least=token), context())).count == 31
    assert world.replica("a", 0).requests[0].at_least.seq == 4
    world.replica("b", 1).error = Unavailable("down")
    with pytest.raises(Unavailable, match="shard 1 of collection docs"):
        await reads.count(documents_pb2.CountRequest(collection="docs"), context())


@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
@pytest.mark.parametrize("shard_page", [3, 1000])
async def test_scroll_walks_all_documents_in_id_order(world, context, make_documents, limit, shard_page):
    """Whatever the page sizes, every document comes once, in order, and all pages but the last are full."""
    await world.start([["a"], ["b"], ["a"]])
    documents = make_documents(80)
    world.put(documents)
    for member, shard in (("a", 0), ("b", 1), ("a", 2)):
        world.replica(member, shard).page_limit = shard_page
    pages = await scroll_all(world.reading().document_reads, context, limit)
    assert [doc_id for page in pages for doc_id in page] == sorted(documents, key=ids.order_key)
    assert all(len(page) == limit for page in pages[:-1])


async def test_scroll_of_nothing_is_one_empty_page(world, context):
    """An empty collection ends at once."""
    await world.start([["a"], ["b"]])
    assert await scroll_all(world.reading().document_reads, context, 5) == [[]]


async def test_scroll_pages_end_before_they_outgrow_a_message(world, context, make_documents):
    """Large documents make short pages; the walk still sees all of them."""
    await world.start([["a"], ["b"]])
    documents = make_documents(40)
    world.put(documents)
    for member, shard in (("a", 0), ("b", 1)):
        world.replica(member, shard).text = "x" * 2**20
    pages = await scroll_all(world.reading().document_reads, context, 40)
    assert [len(page) for page in pages] == [15, 15, 10]
    assert limits.MAX_PAGE_BYTES == 16 * 2**20


async def test_scroll_checks_limit_and_token(world, context, make_documents):
    """A page token is opaque, checked, and of one collection."""
    await world.start([["a"]])
    world.put(make_documents(5))
    reads = world.reading().document_reads
    request = documents_pb2.ScrollRequest(collection="docs", limit=2)
    token = (await reads.scroll(request, context())).next_page_token
    changed = bytes([token[0], token[1], token[2] ^ 1]) + token[3:]
    for wrong, field in [
        (documents_pb2.ScrollRequest(collection="docs", limit=1001), "limit"),
        (documents_pb2.ScrollRequest(collection="docs", page_token=changed), "page_token"),
        (documents_pb2.ScrollRequest(collection="docs", page_token=b"x"), "page_token"),
    ]:
        with pytest.raises(InvalidArgument) as caught:
            await reads.scroll(wrong, context())
        assert caught.value.field == field
