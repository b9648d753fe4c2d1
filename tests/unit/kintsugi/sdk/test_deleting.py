"""Deleting by filter: as many calls as it takes, and what they did together."""

import pytest

from kintsugi import AsyncClient, InvalidArgument, NotFound, Unavailable, tokens
from kintsugi.filters.tree import Equals
from kintsugi.filters.wire import to_message
from kintsugi.v1 import types_pb2

EXPRESSION = "kind = 'trash'"
MESSAGE = to_message(Equals("kind", "trash"))


def failed_after(deleted):
    """What a coordinator says that failed in the middle."""
    error = Unavailable(f"shard 1 did not answer; {deleted} documents were deleted before", retry_delay_s=0.001)
    error.metadata = {"deleted": str(deleted), "changed": "1"}
    return error


@pytest.fixture
async def client(address, fake):
    fake.documents.update(dict.fromkeys(range(12_000), types_pb2.Document()))
    async with AsyncClient(address) as client:
        yield client


@pytest.mark.parametrize("condition", [EXPRESSION, {"kind": "trash"}, Equals("kind", "trash")])
async def test_all_that_match_are_deleted_in_calls(client, fake, condition):
    """The filter in any form; each call has a limit, so that it ends in time."""
    told = []
    done = await client.delete_by_filter("docs", condition, on_deleted=told.append, durable_replicas=2)
    assert (done.deleted, done.changed, done.more) == (12_000, 0, False)
    assert told == [10_000, 2000]
    sent = fake.requests["DeleteByFilter"]
    assert [(one.limit, one.filter, one.durable_replicas) for one in sent] == [(10_000, MESSAGE, 2)] * 2


async def test_a_limit_is_kept_over_calls(client, fake):
    """And it is told that documents may be left."""
    done = await client.delete_by_filter("docs", EXPRESSION, limit=11_000)
    assert (done.deleted, done.more, len(fake.documents)) == (11_000, True, 1000)
    assert [one.limit for one in fake.requests["DeleteByFilter"]] == [10_000, 1000]


async def test_one_token_sees_the_deletes_of_all_calls(client):
    """The calls may have ended on different shards."""
    done = await client.delete_by_filter("docs", EXPRESSION, limit=11_001)
    assert [(shard, position.seq) for shard, position in tokens.decode(done.token).positions] == [
        (0, 10_000),
        (1, 11_001),
    ]


async def test_what_a_failed_call_deleted_counts(client, fake):
    """A repetition does not forget what the call before it did."""
    fake.faults["DeleteByFilter"].append(failed_after(500))
    told = []
    done = await client.delete_by_filter("docs", EXPRESSION, on_deleted=told.append)
    assert (done.deleted, done.changed) == (12_500, 1)
    assert sum(told) == 12_500


async def test_an_error_tells_what_all_calls_deleted(client, fake):
    """Once, in words and for programs."""
    lasting = NotFound("there is no collection docs")
    fake.faults["DeleteByFilter"].extend([failed_after(500), None, lasting])
    with pytest.raises(NotFound) as raised:
        await client.delete_by_filter("docs", EXPRESSION)
    assert raised.value.message == "there is no collection docs; 10500 documents were deleted before"
    assert raised.value.metadata["deleted"] == "10500"


async def test_an_error_of_the_last_attempt_is_told_once(client, fake):
    """The words of the coordinator and of the client do not add up."""
    lasting = failed_after(500)
    lasting.retry_delay_s = 3600.0
    fake.faults["DeleteByFilter"].append(lasting)
    with pytest.raises(Unavailable) as raised:
        await client.delete_by_filter("docs", EXPRESSION)
    assert raised.value.message.count("deleted before") == 1
    assert raised.value.metadata["deleted"] == "500"


async def test_an_error_before_anything_was_deleted_stays_as_it_is(client, fake):
    """Nothing is said of deletes then."""
    fake.faults["DeleteByFilter"].append(NotFound("there is no collection docs"))
    with pytest.raises(NotFound) as raised:
        await client.delete_by_filter("docs", EXPRESSION)
    assert raised.value.message == "there is no collection docs"


@pytest.mark.parametrize(("condition", "options"), [("kind =", {}), ({}, {}), (EXPRESSION, {"limit": 0})])
async def test_what_is_malformed_is_not_sent(client, fake, condition, options):
    """An empty filter is no way to delete everything."""
    with pytest.raises(InvalidArgument):
        await client.delete_by_filter("docs", condition, **options)
    assert not fake.requests["DeleteByFilter"]


async def test_counts_take_a_filter(client, fake):
    """In any form, or none."""
    await client.count("docs", filter=EXPRESSION)
    await client.count("docs")
    with_filter, without = fake.requests["Count"]
    assert with_filter.filter == MESSAGE
    assert not without.HasField("filter")
