"""Bulk upsert against a coordinator in this process."""

import asyncio

import numpy as np
import pytest

from kintsugi import AsyncClient, DeadlineExceeded, NotFound, ResourceExhausted, RetryPolicy, Unavailable
from kintsugi.sdk import bulk
from kintsugi.sdk.convert import Items

FAST = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01)


@pytest.fixture
async def client(address):
    async with AsyncClient(address, retry=FAST) as client:
        yield client


def _columns(count):
    return list(range(count)), np.arange(count * 4, dtype=np.float32).reshape(count, 4) + 1


async def test_all_items_are_written_in_chunks(client, fake):
    """Every item arrives with its own vector, attributes and text, and the versions come back in order."""
    ids, vectors = _columns(95)
    result = await client.bulk_upsert(
        "docs", ids, vectors, attributes=[{"i": i} for i in ids], texts=[f"t{i}" for i in ids], batch=10
    )
    assert (result.items, result.applied, result.unapplied, result.chunks, result.resumed) == (95, 95, (), 10, 0)
    assert result.versions.tolist() == [fake.documents[i].version for i in ids]
    assert fake.documents[94].text == "t94"
    stored = np.frombuffer(fake.documents[94].vectors[0].block.data, "<f4")
    np.testing.assert_array_equal(stored, vectors[94])
    assert result.token


async def test_a_broken_stream_is_resumed_with_the_same_request_ids(client, fake):
    """Chunks whose answer was lost are sent again with their request ids, and applied once."""
    ids, vectors = _columns(60)
    fake.faults["chunk"].extend([None, "lose the answer", None, None, "lose the answer"])
    result = await client.bulk_upsert("docs", ids, vectors, batch=10, window=3)
    assert (result.applied, result.resumed) == (60, 2)
    assert len(fake.applications) == len(set(fake.applications)) == 6
    sent = [request.upsert.request_id for request in fake.requests["chunk"]]
    assert len(sent) > len(set(sent)) == 6


async def test_a_stream_that_ends_early_is_resumed(client, fake):
    """A coordinator that ends the call in order, but before all answers, does not lose anything."""
    ids, vectors = _columns(30)
    fake.faults["chunk"].extend([None, "end the call"])
    result = await client.bulk_upsert("docs", ids, vectors, batch=10)
    assert (result.applied, result.resumed) == (30, 1)


async def test_another_coordinator_takes_over(fake, address, another):
    """When the coordinator goes away, the remaining chunks go to the next one."""
    first = another.fake
    first.faults["chunk"].extend([None, None, Unavailable("going away")])
    ids, vectors = _columns(50)
    async with AsyncClient([another.address, address], retry=FAST) as client:
        result = await client.bulk_upsert("docs", ids, vectors, batch=10, window=2)
    assert result.applied == 50
    assert {*first.documents, *fake.documents} == set(ids)
    assert len(first.applications) == 2
    assert set(first.applications).isdisjoint(fake.applications)


async def test_an_overload_of_the_call_is_waited_out(client, fake):
    """RESOURCE_EXHAUSTED before the first answer delays the call and nothing more."""
    fake.faults["BulkUpsert"].append(ResourceExhausted("full", retry_delay_s=0.01))
    ids, vectors = _columns(10)
    assert (await client.bulk_upsert("docs", ids, vectors)).applied == 10


async def test_unsettled_chunks_are_sent_again(client, fake):
    """A chunk whose items were not written goes out again with its request id."""
    fake.unsettled[15] = 2
    ids, vectors = _columns(40)
    result = await client.bulk_upsert("docs", ids, vectors, batch=10, window=2)
    assert (result.applied, result.chunks) == (40, 4)
    sent = [request.upsert.request_id for request in fake.requests["chunk"]]
    assert sorted(map(sent.count, set(sent))) == [1, 1, 1, 3]


async def test_refused_items_are_collected(client):
    """Items that the cluster refuses, and items that cannot be sent at all, stand in the result with their place."""
    await client.upsert("docs", [7], np.ones((1, 4)))
    ids, vectors = _columns(20)
    attributes = [{"x": float("nan")} if i == 11 else {} for i in ids]
    result = await client.bulk_upsert("docs", ids, vectors, attributes=attributes, condition="insert", batch=5)
    assert [(item.index, item.id) for item in result.unapplied] == [(7, 7), (11, 11)]
    assert result.unapplied[0].message == "it exists"
    assert "attributes[11]" in result.unapplied[1].message
    assert result.applied == 18


async def test_a_call_of_only_unsendable_items_sends_nothing(client, fake):
    """A chunk without any item left is not sent."""
    result = await client.bulk_upsert("docs", [-1, 2**64], np.ones((2, 4)))
    assert (result.applied, len(result.unapplied)) == (0, 2)
    assert not fake.requests["chunk"]


async def test_nothing_to_write_is_written(client):
    """An empty bulk upsert succeeds."""
    result = await client.bulk_upsert("docs", [], np.empty((0, 4)))
    assert (result.items, result.applied, result.token) == (0, 0, b"")


async def test_a_lasting_failure_is_raised(client, fake):
    """What another attempt would not change ends the call at once."""
    fake.faults["chunk"].append(NotFound("collection docs does not exist", field="collection"))
    ids, vectors = _columns(30)
    with pytest.raises(NotFound):
        await client.bulk_upsert("docs", ids, vectors, batch=10)
    assert len(fake.requests["BulkUpsert"]) == 1


async def test_a_call_without_answers_ends_after_its_time(client, fake):
    """When no chunk is answered for timeout_s, the call raises."""
    fake.hold = asyncio.Event()
    ids, vectors = _columns(30)
    with pytest.raises(DeadlineExceeded, match="no chunk"):
        await client.bulk_upsert("docs", ids, vectors, timeout_s=0.2)
    fake.hold.set()


async def test_no_more_chunks_than_the_window_are_in_flight(client, fake):
    """The client cuts its input no further ahead than its window of unanswered chunks and the one being cut."""
    ahead = []

    class Recording(list):
        def __getitem__(self, i):
            ahead.append(i // 10 - len(fake.applications))
            return super().__getitem__(i)

    ids, vectors = _columns(400)
    assert (await client.bulk_upsert("docs", Recording(ids), vectors, batch=10, window=3)).applied == 400
    assert 1 <= max(ahead) <= 3 + 1


async def test_a_cancelled_call_leaves_nothing_running(client, fake):
    """Cancelling a bulk upsert ends its tasks."""
    fake.hold = asyncio.Event()
    ids, vectors = _columns(30)
    call = asyncio.ensure_future(client.bulk_upsert("docs", ids, vectors))
    async with asyncio.timeout(10):
        await fake.streaming.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not [task for task in asyncio.all_tasks() if "_Stream" in str(task.get_coro())]
    fake.hold.set()


def test_the_same_input_is_cut_into_the_same_chunks():
    """Repeating a call with its request id repeats its chunks, ids and contents."""
    ids, vectors = _columns(25)
    plan = bulk.BulkPlan("docs", 2, 1, "mine", batch=10)
    first, second = (list(bulk.cut(Items(ids), {"m": vectors}, plan)) for _ in range(2))
    assert first == second
    assert [chunk.request.request_id for chunk in first] == ["mine-0", "mine-1", "mine-2"]


def test_large_items_make_small_chunks():
    """A chunk stays near its target size whatever the number of items; an item above it stands alone."""
    texts = ["x" * (bulk.TARGET_CHUNK_BYTES // 3)] * 5 + ["y" * (2 * bulk.TARGET_CHUNK_BYTES)] + ["z"]
    items = Items(list(range(7)), texts=texts)
    chunks = list(bulk.cut(items, {"m": np.ones((7, 4), dtype=np.float32)}, bulk.BulkPlan("docs", 2, 1, "mine")))
    assert [chunk.places for chunk in chunks] == [[0, 1], [2, 3], [4], [5], [6]]


async def test_the_progress_bar_is_drawn_when_wanted(client, capsys):
    """progress=True draws on stderr, and by default a pipe gets nothing."""
    ids, vectors = _columns(10)
    await client.bulk_upsert("docs", ids, vectors)
    assert capsys.readouterr().err == ""
    await client.bulk_upsert("docs", ids, vectors, progress=True)
    assert "upserting into docs" in capsys.readouterr().err
