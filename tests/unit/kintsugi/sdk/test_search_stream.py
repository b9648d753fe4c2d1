"""Searches of the client on one open stream, against a coordinator in this process."""

import asyncio

import numpy as np
import pytest

from kintsugi import AsyncClient, InvalidArgument, Unavailable

QUERY = np.eye(1, 8, dtype=np.float32)[0]


@pytest.fixture
async def client(address):
    async with AsyncClient(address) as client:
        await client.upsert("docs", list(range(8)), np.eye(8, dtype=np.float32))
        yield client


async def test_searches_of_all_kinds_share_one_stream(client, fake):
    """Lone ones, those that start together, and batches."""
    assert (await client.search("docs", QUERY, 1)).hits[0].id == 0
    together = await asyncio.gather(*(client.search("docs", vector, 1) for vector in np.eye(8)))
    assert [found.hits[0].id for found in together] == list(range(8))
    assert (await client.search_batch("docs", np.eye(8), 1)).ids.tolist() == [[number] for number in range(8)]
    assert fake.streams == 1


async def test_a_search_fails_alone(client, fake):
    """With its own class and field, and the stream goes on."""
    with pytest.raises(InvalidArgument) as failed:
        await client.search("docs", np.zeros(8), 1)
    assert failed.value.field == "vectors[0]"
    assert (await client.search("docs", QUERY, 1)).hits[0].id == 0
    assert fake.streams == 1


async def test_what_a_coordinator_told_on_a_stream_is_told_by_it(client, fake):
    """An unavailable shard is named, and not taken for a lost connection."""
    fake.faults["Search"].extend([Unavailable("shard 3 has no replica")] * 100)
    with pytest.raises(Unavailable, match="shard 3 has no replica"):
        await client.search("docs", QUERY, 1, timeout_s=0.3)


@pytest.mark.parametrize("options", [{"exact": True}, {"attributes": True}, {"text": True}])
async def test_searches_with_long_answers_take_calls_of_their_own(client, fake, options):
    """Short answers do not stand behind long ones."""
    await client.search("docs", QUERY, **options)
    assert (len(fake.requests["Search"]), fake.streams) == (1, 0)


async def test_long_batches_take_calls_of_their_own(client, fake):
    """So do those with thousands of hits."""
    await client.search_batch("docs", np.ones((200, 8)), 100)
    assert (len(fake.requests["SearchBatch"]), fake.streams) == (1, 0)


async def test_a_coordinator_without_streams_gets_calls(client, fake):
    """Those of the release before answer all the same, alone and in batches."""
    fake.knows_streams = False
    assert [(await client.search("docs", vector, 1)).hits[0].id for vector in np.eye(3, 8)] == [0, 1, 2]
    assert (await client.search_batch("docs", np.eye(8), 1)).ids.tolist() == [[number] for number in range(8)]
    assert (len(fake.requests["Search"]), len(fake.requests["SearchBatch"])) == (3, 1)
    assert fake.refused_streams == 1


async def test_closing_fails_what_waits(client, fake):
    """Nobody is left waiting for his deadline."""
    await client.search("docs", QUERY, 1)
    fake.hold = asyncio.Event()
    waiting = asyncio.create_task(client.search("docs", QUERY, 1))
    for _ in range(5):  # until it waits for its answer
        await asyncio.sleep(0)
    await client.close()
    with pytest.raises((Unavailable, RuntimeError, asyncio.CancelledError)):
        await waiting
