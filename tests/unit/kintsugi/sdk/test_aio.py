"""The asynchronous client against a coordinator in this process."""

import asyncio

import numpy as np
import pytest

from kintsugi import (
    AsyncClient,
    DeadlineExceeded,
    InvalidArgument,
    Model,
    NotFound,
    Outcome,
    ResourceExhausted,
    Unavailable,
)
from kintsugi.ann.spec import EncodingKind, EncodingSpec
from kintsugi.filters.tree import Equals, Range
from kintsugi.filters.wire import from_message
from kintsugi.sdk.connection import Clock


class ManualClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now_s, sleep=self.sleep)


@pytest.fixture
def time():
    return ManualClock()


@pytest.fixture
async def client(address, time):
    async with AsyncClient(address, clock=time.clock) as client:
        yield client


async def _fill(client, count=5):
    return await client.upsert(
        "docs",
        [*range(count - 1), "last"],
        np.eye(count, 8, dtype=np.float32),
        attributes=[{"n": i} for i in range(count)],
        texts=[f"text {i}" for i in range(count)],
    )


async def test_written_documents_come_back(client):
    """What upsert took, get returns: ids of both kinds, attributes, text, vectors and version."""
    written = await _fill(client)
    assert written.applied == 5
    assert written.settled
    assert written.versions.tolist() == [1, 2, 3, 4, 5]
    found = await client.get("docs", ["last", 0, "absent"], attributes=True, text=True, vectors=True)
    assert [document.id for document in found] == ["last", 0]
    assert found.missing == ("absent",)
    last = found.documents[0]
    assert (last.attributes, last.text, last.version) == ({"n": 4}, "text 4", 5)
    np.testing.assert_array_equal(last.vectors["m"], np.eye(5, 8, dtype=np.float32)[4])
    bare = (await client.get("docs", [0])).documents[0]
    assert (bare.attributes, bare.text, bare.vectors) == (None, None, None)


async def test_numpy_ids_and_other_number_formats_are_taken(client, fake):
    """Ids may be a numpy column; f64 becomes f32 and f16 stays f16."""
    await client.upsert("docs", np.array([1, 2], dtype=np.int32), np.ones((2, 3)))
    await client.upsert("docs", np.array(["a", "b"]), np.ones((2, 3), dtype=np.float16))
    assert set(fake.documents) == {1, 2, "a", "b"}
    types = [request.vectors[0].block.element_type for request in fake.requests["Upsert"]]
    assert types == [1, 2]


async def test_large_reads_are_split(client, fake):
    """More ids than a request may hold become several requests, answered in order."""
    found = await client.get("docs", list(range(2500)))
    assert [len(request.ids) for request in fake.requests["Get"]] == [1000, 1000, 500]
    assert found.missing == tuple(range(2500))


async def test_scroll_walks_all_pages(client, fake):
    """The iterator fetches page after page until the last."""
    await _fill(client)
    assert [document.id async for document in client.scroll("docs", 2)] == [0, 1, 2, 3, "last"]
    assert len(fake.requests["Scroll"]) == 3


async def test_search_returns_hits_and_coverage(client):
    """Hits are best first, carry what was asked for, and come with the coverage."""
    await _fill(client)
    found = await client.search("docs", np.eye(5, 8)[4], 2, attributes=True)
    assert (found.hits[0].id, found.hits[0].score, found.hits[0].attributes) == ("last", 1.0, {"n": 4})
    assert found.hits[0].text is None
    assert len(found) == 2
    assert found.coverage.complete


async def test_search_batch_returns_columns(client, fake):
    """Rows are queries; the columns are padded where a query has fewer hits."""
    await _fill(client)
    batch = await client.search_batch("docs", np.eye(5, 8)[[4, 1]], 3, text=True)
    assert batch.ids.shape == batch.scores.shape == batch.versions.shape == (2, 3)
    assert batch.ids[:, 0].tolist() == ["last", 1]
    assert batch.texts[1][0] == "text 1"
    assert batch.hits(0)[0].id == "last"
    del fake.documents["last"]
    integers = await client.search_batch("docs", np.eye(5, 8)[[4, 1]], 3)
    assert integers.ids.dtype == np.uint64


async def test_searches_that_start_together_share_a_call(client, fake):
    """Single searches of one gather become one batch, each with its own answer."""
    await _fill(client)
    answers = await asyncio.gather(*(client.search("docs", np.eye(5, 8)[i], 1) for i in range(4)))
    assert [answer.hits[0].id for answer in answers] == [0, 1, 2, 3]
    assert (len(fake.requests["Search"]), len(fake.requests["SearchBatch"])) == (0, 1)


async def test_many_searches_that_start_together_share_two_calls(client, fake):
    """One half is under way while the other is answered; as long as a call is, those that come share one."""
    await _fill(client)
    queries = np.eye(5, 8)[np.arange(20) % 5]
    answers = await asyncio.gather(*(client.search("docs", query, 1) for query in queries))
    assert [answer.hits[0].id for answer in answers] == [0, 1, 2, 3, "last"] * 4
    assert [request.vectors[0].block.count for request in fake.requests["SearchBatch"]] == [10, 10]


async def test_searches_with_different_options_share_no_call(client, fake):
    """Equal filters travel together, however they are written; others do not."""
    await _fill(client)
    query = np.eye(5, 8)[1]
    await asyncio.gather(
        client.search("docs", query, 1, filter={"lang": "en"}),
        client.search("docs", query, 1, filter="lang = 'en'"),
        client.search("docs", query, 1, filter={"lang": "de"}),
        client.search("docs", query, 1, min_score=0),
        client.search("docs", query, 1, offset=1),
        client.search("docs", query, 1, group_by="lang"),
    )
    assert (len(fake.requests["Search"]), len(fake.requests["SearchBatch"])) == (4, 1)
    (shared,) = fake.requests["SearchBatch"]
    assert from_message(shared.options.filter) == Equals("lang", "en")


async def test_a_search_carries_filter_bounds_and_groups(client, fake):
    """Everything that narrows a search is in the request; what is left out is not set."""
    await _fill(client)
    narrow = {"filter": "year >= 2000", "min_score": -0.5, "group_by": "author.name", "group_size": 3}
    await client.search("docs", np.eye(5, 8)[1], 4, **narrow)
    await client.search("docs", np.eye(5, 8)[1], 4, offset=7)
    first, second = (request.options for request in fake.requests["Search"])
    assert from_message(first.filter) == Range("year", at_least=2000)
    assert (first.min_score, first.group_by.attribute, first.group_by.size, first.offset) == (-0.5, "author.name", 3, 0)
    assert (second.HasField("filter"), second.HasField("min_score"), second.HasField("group_by")) == (False,) * 3
    assert second.offset == 7


async def test_hits_of_a_grouped_search_tell_their_group(client):
    """Alone and in a batch; without group_by there is none."""
    await _fill(client)
    queries = np.eye(5, 8)[[4, 1]]
    alone = await client.search("docs", queries[0], 2, group_by="colour")
    batch = await client.search_batch("docs", queries, 2, group_by="colour")
    assert [hit.group for hit in alone] == ["blue", "blue"]
    assert batch.groups == (("blue", "blue"), ("blue", "blue"))
    assert batch.hits(1)[0].group == "blue"
    plain = await client.search_batch("docs", queries, 2)
    assert (plain.groups, plain.hits(0)[0].group) == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter": "year >="}, "filter ends at character 8"),
        ({"filter": {"year": None}}, "filter.year is None"),
        ({"min_score": "high"}, "min_score is a str, must be a number"),
        ({"min_score": 10**400}, "min_score is beyond binary64, must be finite"),
        ({"offset": -1}, "offset is -1, must be 0 to"),
        ({"group_size": 2}, "group_size is 2, must be left out without group_by"),
        ({"group_by": "a", "group_size": 0}, "group_size is 0, must be 1 to 100"),
        ({"group_by": 5}, "group_by is a int, must be a string"),
    ],
)
async def test_an_option_that_the_wire_cannot_carry_is_refused(client, fake, options, message):
    """Before anything is sent, with the name of the keyword."""
    with pytest.raises(InvalidArgument) as refused:
        await client.search("docs", np.eye(5, 8)[1], 1, **options)
    assert refused.value.message.startswith(message)
    assert not fake.requests["Search"]


async def test_a_bad_query_does_not_fail_its_company(client):
    """When a shared call is refused, each search gets its own answer or error."""
    await _fill(client)
    good, bad = await asyncio.gather(
        client.search("docs", np.eye(5, 8)[1], 1), client.search("docs", np.zeros(8), 1), return_exceptions=True
    )
    assert good.hits[0].id == 1
    assert isinstance(bad, InvalidArgument)


async def test_a_write_is_retried_with_the_same_request_id(client, fake, time):
    """After UNAVAILABLE the identical request is sent again."""
    fake.faults["Upsert"].extend([Unavailable("away"), Unavailable("away")])
    written = await _fill(client)
    first, second, third = fake.requests["Upsert"]
    assert first == second == third
    assert first.request_id == written.request_id != ""
    assert len(time.slept) == 2


async def test_an_overload_is_waited_out_for_as_long_as_the_server_says(client, fake, time):
    """RetryInfo of RESOURCE_EXHAUSTED is honoured."""
    fake.faults["Search"].append(ResourceExhausted("full", retry_delay_s=2.5))
    await client.search("docs", np.ones(8))
    assert time.slept == [2.5]


async def test_retries_end_with_the_time_of_the_call(client, fake, time):
    """The last failure is raised, with its delay, instead of waiting past the deadline."""
    fake.faults["Count"].extend([ResourceExhausted("full", retry_delay_s=3)] * 9)
    with pytest.raises(ResourceExhausted, match="full") as raised:
        await client.count("docs", timeout_s=10)
    assert raised.value.retry_delay_s == 3
    assert time.slept == [3, 3, 3]


async def test_the_last_word_of_the_cluster_outlives_the_deadline(address, fake):
    """A read that times out while it is repeated fails with what the cluster said, not with what gRPC says."""
    fake.faults["Search"].append(Unavailable("shard 1 of docs cannot answer", reason="SHARD_UNAVAILABLE"))
    fake.silent_after["Search"] = 1
    async with AsyncClient(address) as client:
        with pytest.raises(Unavailable, match="^shard 1 of docs cannot answer$") as raised:
            await client.search("docs", np.ones(8), timeout_s=0.6)
    assert (raised.value.status, raised.value.reason) == ("UNAVAILABLE", "SHARD_UNAVAILABLE")


async def test_a_write_that_times_out_says_so_and_what_the_cluster_said(address, fake):
    """Whether a repeated write was applied is unknown, whatever an earlier attempt said."""
    fake.faults["Upsert"].append(Unavailable("the log is moving", reason="LOG_RECOVERING", retry_delay_s=0.01))
    fake.silent_after["Upsert"] = 1
    async with AsyncClient(address) as client:
        with pytest.raises(DeadlineExceeded, match="did not answer within .*before that: the log is moving") as raised:
            await client.upsert("docs", [1], np.ones((1, 2)), timeout_s=0.6)
    assert raised.value.status == "DEADLINE_EXCEEDED"
    assert raised.value.retry_delay_s == 0.01


async def test_silence_names_the_coordinator(address, fake):
    """A timeout without any word of the cluster says who was silent, for how long."""
    fake.silent_after["Count"] = 0
    async with AsyncClient(address) as client:
        with pytest.raises(DeadlineExceeded, match=rf"^the coordinator at {address} did not answer within 0.3 s$"):
            await client.count("docs", timeout_s=0.3)


async def test_errors_keep_their_class_and_field_and_are_not_retried(client, fake):
    """A lasting failure comes back at once, as the class of its status."""
    with pytest.raises(NotFound, match="absent does not exist") as raised:
        await client.upsert("absent", [1], np.ones((1, 2)))
    assert raised.value.field == "collection"
    assert len(fake.requests["Upsert"]) == 1


async def test_unsettled_items_are_sent_again(client, fake):
    """An answer with items that were not written repeats the request until they are."""
    fake.unsettled[2] = 2
    written = await _fill(client)
    assert written.applied == 5
    assert len({request.request_id for request in fake.requests["Upsert"]}) == 1
    assert len(fake.requests["Upsert"]) == 3


async def test_items_left_unsettled_at_the_deadline_stand_in_the_result(client, fake):
    """When time is over, the last answer is returned as it is."""
    fake.unsettled[2] = 10**6
    written = await _fill(client)
    assert set(written.outcomes) == {Outcome.NOT_WRITTEN}
    assert not written.settled
    assert written.messages[0] == "the log is moving"


async def test_refused_items_do_not_raise(client):
    """A condition that does not hold is an outcome of its item."""
    await client.upsert("docs", [1], np.ones((1, 2)))
    written = await client.upsert("docs", [1, 2], np.ones((2, 2)), condition="insert")
    assert written.outcomes == (Outcome.REFUSED, Outcome.APPLIED)


async def test_the_next_coordinator_takes_over(address, fake, time, another):
    """When the coordinator in use is down, calls go to another one at once and stay there."""
    await another.server.stop(None)
    async with AsyncClient([another.address, address], clock=time.clock) as client:
        assert await client.count("docs") == 0
        assert await client.count("docs") == 0
    assert time.slept == [0.0]
    assert len(fake.requests["Count"]) == 2


async def test_a_deletion_whose_answer_was_lost_succeeds(client, fake):
    """NOT_FOUND on a repeated deletion means that the first attempt did it."""
    await client.create_collection("docs", Model("m", 8))
    fake.faults["DeleteCollection"].append(Unavailable("the answer is lost"))
    await client.delete_collection("docs")
    with pytest.raises(NotFound):
        await client.delete_collection("docs")


async def test_collections_are_described(client):
    """A collection comes back with its models and what the cluster filled in."""
    model = Model("m", 8, revision="r", normalised=True, query_prefix="q: ")
    made = await client.create_collection("docs", model, metric="dot", shards=2, stored="f16")
    assert made == await client.collection("docs")
    assert [made] == await client.collections()
    assert (made.shards, made.replicas, made.metric, made.stored, made.models) == (2, 1, "dot", "f16", (model,))


async def test_a_collection_is_encoded_by_the_written_form_or_a_specification(client, fake):
    """At its creation and later; the oversampling goes along, and comes back with the few digits it was given."""
    made = await client.create_collection("docs", Model("m", 32), encoding="i8+pca-16", oversampling=2.5)
    assert (made.encoding, made.oversampling) == ("i8+pca-16", 2.5)
    spec = EncodingSpec(EncodingKind.BINARY, oversampling=9)
    assert (await client.encode_collection("docs", spec)).oversampling == 9
    encoded = await client.encode_collection("docs", "recurrent", 3.3)
    assert (encoded.encoding, encoded.oversampling) == ("recurrent-2", 3.3)
    assert fake.requests["Encode"][1].encoding.bits == 2
    assert (await client.encode_collection("docs", "auto")).encoding == "auto"


async def test_status_and_accepted_loss_are_values(client):
    """The operator's calls return frozen values with the words of the protos."""
    status = await client.status()
    assert status.registry == "ok"
    assert status.collections[0].shards[0].replicas[0].index_versions[0].encoding == "i8"
    assert (await client.accept_loss("docs", 1)).kept_seq == 9


async def test_deletes_say_what_was_there(client):
    """`found` tells for each id whether there was a document."""
    await _fill(client)
    deleted = await client.delete("docs", [0, "absent"])
    assert deleted.found.tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c: c.upsert("docs", "abc", np.ones((3, 2))), "ids"),
        (lambda c: c.upsert("docs", [-1], np.ones((1, 2))), r"ids\[0\]"),
        (lambda c: c.upsert("docs", [1.5], np.ones((1, 2))), r"ids\[0\]"),
        (lambda c: c.upsert("docs", [True], np.ones((1, 2))), r"ids\[0\]"),
        (lambda c: c.upsert("docs", ["\ud800"], np.ones((1, 2))), r"ids\[0\]"),
        (lambda c: c.upsert("docs", [1], np.ones(2)), "vectors"),
        (lambda c: c.upsert("docs", [1], [["a"]]), "vectors"),
        (lambda c: c.upsert("docs", [1], [[1, 2], [3]]), "vectors"),
        (lambda c: c.upsert("docs", [1, 2], np.ones((1, 2))), "vectors"),
        (lambda c: c.upsert("docs", [1], np.ones((1, 2)), attributes=[]), "attributes"),
        (lambda c: c.upsert("docs", [1], np.ones((1, 2)), attributes=[{"x": float("nan")}]), r"attributes\[0\]"),
        (lambda c: c.upsert("docs", [1], np.ones((1, 2)), attributes=[[1]]), r"attributes\[0\]"),
        (lambda c: c.upsert("docs", [1], np.ones((1, 2)), texts=[b"x"]), r"texts\[0\]"),
        (lambda c: c.upsert("docs", [1], np.ones((1, 2)), condition="replace"), "condition"),
        (lambda c: c.upsert("docs", [1], np.ones((1, 2)), condition=[1, 2]), "condition"),
        (lambda c: c.upsert("docs", [1], np.ones((1, 2)), acknowledgement="now"), "acknowledgement"),
        (lambda c: c.upsert("docs", [1], np.ones((1, 2)), durable_replicas=0), "durable_replicas"),
        (lambda c: c.upsert("docs", [1], {"m": np.ones((1, 2))}, model="m"), "model"),
        (lambda c: c.search("docs", np.ones((1, 2))), "vector"),
        (lambda c: c.search("docs", np.ones(2), 0), "k"),
        (lambda c: c.search("docs", np.ones(2), min_coverage=0), "min_coverage"),
        (lambda c: c.search("docs", np.ones(2), oversampling="2"), "oversampling"),
        (lambda c: c.search("docs", np.ones(2), ef_search=0), "ef_search"),
        (lambda c: c.create_collection("docs", Model("m", -1)), "model.dimension"),
        (lambda c: c.create_collection("docs", Model("m", 2), metric="euclid"), "metric"),
        (lambda c: c.create_collection("docs", Model("m", 2), shards=0), "shards"),
        (lambda c: c.create_collection("docs", Model("m", 2), encoding="i9"), "encoding 'i9' is not one of auto, f32"),
        (lambda c: c.encode_collection("docs", "i8-2"), "encoding 'i8-2': bits is 2, must be 0"),
        (lambda c: c.encode_collection("docs", 8), "encoding is a int"),
        (lambda c: c.encode_collection("docs", "i8", 0), "oversampling is 0"),
    ],
)
async def test_what_the_wire_cannot_carry_is_refused_with_its_field(client, fake, call, field):
    """Arguments that have no form on the wire raise InvalidArgument before anything is sent."""
    with pytest.raises(InvalidArgument, match=f"^{field}"):
        await call(client)
    assert not any(fake.requests.values())


async def test_unknown_keywords_raise_type_error(client):
    """A misspelt option is not ignored."""
    with pytest.raises(TypeError, match=r"search\(\) got an unexpected keyword argument 'exakt'"):
        await client.search("docs", np.ones(2), exakt=True)


@pytest.mark.parametrize("addresses", [(), "localhost", ["a:1", 7]])
def test_addresses_must_have_a_port(addresses):
    """A client without a usable address is refused when it is made."""
    with pytest.raises(InvalidArgument, match="addresses"):
        AsyncClient(addresses)


async def test_a_closed_client_says_so(address):
    """Calls after close raise, closing twice does not."""
    client = AsyncClient(address)
    await client.count("docs")
    await client.close()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.count("docs")


async def test_a_client_of_another_loop_says_so(address):
    """gRPC channels belong to one loop; using them from another is refused instead of hanging."""
    async with AsyncClient(address) as client:
        await client.count("docs")
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, client.count("docs"))
