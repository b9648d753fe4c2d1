"""The server's side of a stream of calls, against a client that does not behave."""

import asyncio
from typing import Any

import grpc
import pytest

from coordinator.services.search import request_of, streamed_calls
from kintsugi.limits import DEFAULT_DEADLINE_S
from kintsugi.rpc.channels import channel
from kintsugi.rpc.server import RpcServer
from kintsugi.rpc.streaming import MAX_CALLS
from kintsugi.v1 import search_pb2, search_pb2_grpc


class Searches(search_pb2_grpc.SearchServicer):
    """Answers when released."""

    def __init__(self, draining: asyncio.Event) -> None:
        self.release = asyncio.Event()
        self.arrived: asyncio.Queue[None] = asyncio.Queue()
        self.entered = 0
        self.remaining_s: list[float] = []
        self._streamed = streamed_calls(self, draining)

    async def Search(self, _request, context):
        self.entered += 1
        self.arrived.put_nowait(None)
        self.remaining_s.append(context.time_remaining())
        await self.release.wait()
        return search_pb2.SearchResponse()

    async def SearchStream(self, _messages, context):
        await self._streamed.run(context, request_of)


class Served:
    """A server and an open stream to it."""

    async def __aenter__(self):
        self.server = RpcServer("127.0.0.1:0")
        self.searches = Searches(self.server.draining)
        self.server.add(search_pb2_grpc.add_SearchServicer_to_server, self.searches)
        await self.server.__aenter__()
        self.channel = channel(self.server.address)
        self.stream: Any = search_pb2_grpc.SearchStub(self.channel).SearchStream()
        return self

    async def __aexit__(self, *_):
        self.stream.cancel()
        await self.channel.close()
        await self.server.stop(0)

    async def send(self, number, **fields):
        await self.stream.write(
            search_pb2.StreamedSearch(number=number, search=search_pb2.SearchRequest(collection="c"), **fields)
        )

    async def arrived(self, count):
        async with asyncio.timeout(30):
            for _ in range(count):
                await self.searches.arrived.get()


async def test_a_number_in_work_is_refused():
    """The stream ends, naming the field, since nobody could tell the answers apart."""
    async with Served() as served:
        await served.send(7)
        await served.send(7)
        with pytest.raises(grpc.aio.AioRpcError, match="number is 7, which is in work") as failed:
            await served.stream.read()
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_beyond_the_bound_nothing_is_read():
    """So a client that never reads cannot fill the server's memory; whoever gets answers goes on."""
    async with Served() as served:
        sending = asyncio.create_task(_send_many(served, MAX_CALLS + 10))
        await served.arrived(MAX_CALLS)
        assert served.searches.entered == MAX_CALLS
        served.searches.release.set()
        numbers = {(await served.stream.read()).number for _ in range(MAX_CALLS + 10)}
        await sending
        assert numbers == set(range(1, MAX_CALLS + 11))


async def _send_many(served, count):
    for number in range(1, count + 1):
        await served.send(number)


async def test_a_search_that_was_given_up_makes_room():
    """What will never be answered does not count."""
    async with Served() as served:
        await _send_many(served, MAX_CALLS)
        await served.arrived(MAX_CALLS)
        await served.stream.write(search_pb2.StreamedSearch(number=1))
        await served.send(MAX_CALLS + 1)
        await served.arrived(1)


async def test_without_a_time_the_usual_one_is_assumed():
    """Other clients need not know how long their searches take."""
    async with Served() as served:
        await served.send(1)
        await served.send(2, timeout_s=2.0)
        await served.arrived(2)
        assert 0.5 * DEFAULT_DEADLINE_S < served.searches.remaining_s[0] <= DEFAULT_DEADLINE_S
        assert 0 < served.searches.remaining_s[1] <= 2.0


async def test_who_has_asked_all_gets_all_answers():
    """A client that closes its side of the stream still hears of what it asked."""
    async with Served() as served:
        await _send_many(served, 3)
        await served.stream.done_writing()
        await served.arrived(3)
        served.searches.release.set()
        assert {(await served.stream.read()).number for _ in range(3)} == {1, 2, 3}
        assert await served.stream.read() is grpc.aio.EOF
