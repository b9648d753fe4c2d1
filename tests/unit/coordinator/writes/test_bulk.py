"""The bulk stream: order, bounded flight, items refused alone, errors that end the call."""

import asyncio

import pytest

from coordinator.bulk import Bulk
from kintsugi.errors import FailedPrecondition, InvalidArgument, Unavailable
from kintsugi.v1 import documents_pb2


class Writes:
    """Both halves of a chunk write; chunks finish when released."""

    def __init__(self):
        self.validated = []
        self.running = 0
        self.most_running = 0
        self.gates = {}
        self.bad = {}

    async def validated_chunk(self, request, _deadline):
        if request.request_id in self.bad:
            raise self.bad[request.request_id]
        self.validated.append(request.request_id)
        return request.request_id

    async def write_chunk(self, write, _deadline):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gates.setdefault(write, asyncio.Event()).wait()
        finally:
            self.running -= 1
        return documents_pb2.WriteResponse(request_id=write)

    def release(self, *names):
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()


@pytest.fixture
def writes():
    return Writes()


def chunk(number, **fields):
    upsert = documents_pb2.UpsertRequest(collection="docs", request_id=str(number), **fields)
    return documents_pb2.BulkUpsertRequest(chunk=number, upsert=upsert)


async def stream(chunks):
    for one in chunks:
        yield one


def run(writes, chunks, deadline, in_flight=4):
    return Bulk(writes, chunks_in_flight=in_flight).upsert(stream(chunks), lambda: deadline)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- turns of the event loop, no time
            await asyncio.sleep(0)


async def test_answers_come_in_the_order_of_the_chunks(writes, deadline):
    """Also when later chunks are done first."""
    writes.release("1", "2")
    answers = run(writes, [chunk(n) for n in range(3)], deadline)
    first = asyncio.ensure_future(anext(answers))
    await until(lambda: writes.validated == ["0", "1", "2"])
    writes.release("0")
    assert (await first).response.request_id == "0"
    assert [answer.chunk async for answer in answers] == [1, 2]


async def test_no_more_chunks_are_read_than_may_be_in_flight(writes, deadline):
    """A slow log slows the caller down."""
    answers = run(writes, [chunk(n) for n in range(10)], deadline, in_flight=3)
    first = asyncio.ensure_future(anext(answers))
    await until(lambda: writes.running == 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(writes.validated) == 3
    writes.release(*map(str, range(10)))
    await first
    assert [answer.chunk async for answer in answers] == list(range(1, 10))
    assert writes.most_running == 3


async def test_error_of_a_chunk_ends_the_call_after_the_answers_before_it(writes, deadline):
    """The error names the chunk and the field within the stream's message."""
    writes.bad["1"] = InvalidArgument("vectors[0].block.dimension", "is 2", "must be 3")
    writes.release("0")
    answers = run(writes, [chunk(0), chunk(1), chunk(2)], deadline)
    assert (await anext(answers)).chunk == 0
    with pytest.raises(InvalidArgument, match="chunk 1") as caught:
        await anext(answers)
    assert caught.value.field == "upsert.vectors[0].block.dimension"


async def test_what_a_write_raises_names_its_chunk_too(writes, deadline):
    """Validation and writing refuse a call alike: with the chunk and the path of the field."""

    async def refuse(_write, _deadline):
        raise FailedPrecondition("durable_replicas is 2", field="durable_replicas")

    writes.write_chunk = refuse
    with pytest.raises(FailedPrecondition, match="^chunk 0: durable_replicas is 2$") as caught:
        await anext(run(writes, [chunk(0)], deadline))
    assert caught.value.field == "upsert.durable_replicas"


@pytest.mark.parametrize(
    ("second", "field"),
    [
        (chunk(2), "chunk"),
        (chunk(1, acknowledgement=1), "upsert.acknowledgement"),
        (chunk(1, durable_replicas=2), "upsert.durable_replicas"),
        (
            documents_pb2.BulkUpsertRequest(chunk=1, upsert=documents_pb2.UpsertRequest(collection="other")),
            "upsert.collection",
        ),
    ],
)
async def test_chunks_of_a_call_must_fit_together(writes, deadline, second, field):
    """Numbers without gaps, one collection, one kind of acknowledgement."""
    writes.release("0")
    with pytest.raises(InvalidArgument) as caught:
        async for _ in run(writes, [chunk(0), second], deadline):
            pass
    assert caught.value.field == field


async def test_empty_call_ends_without_answers(writes, deadline):
    """Nothing in, nothing out."""
    assert [answer async for answer in run(writes, [], deadline)] == []


async def test_client_that_goes_away_stops_the_chunks(writes, deadline):
    """Nothing is left running."""
    answers = run(writes, [chunk(n) for n in range(3)], deadline)
    first = asyncio.ensure_future(anext(answers))
    await until(lambda: writes.running == 3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await answers.aclose()
    await until(lambda: writes.running == 0)


async def test_broken_stream_ends_the_call(writes, deadline):
    """What reading the requests raises reaches the caller."""

    async def broken():
        yield chunk(0)
        raise Unavailable("connection lost")

    writes.release("0")
    with pytest.raises(Unavailable):
        async for _ in Bulk(writes, chunks_in_flight=4).upsert(broken(), lambda: deadline):
            pass
