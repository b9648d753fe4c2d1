"""The caller's side of a stream of calls, against servers that end it."""

import asyncio

import grpc
import pytest

from kintsugi.errors import Unavailable
from kintsugi.rpc.channels import channel
from kintsugi.rpc.open_stream import KeptStream
from kintsugi.rpc.server import RpcServer
from kintsugi.v1 import search_pb2, search_pb2_grpc

CALLERS = 8
STREAMS = 100


class Restless(search_pb2_grpc.SearchServicer):
    """Ends every stream at its first message, as one that drains may."""

    def __init__(self) -> None:
        self.streams = 0

    async def SearchStream(self, _messages, context):
        assert await context.read() is not grpc.aio.EOF
        self.streams += 1


async def test_a_stream_that_ends_while_something_is_asked_can_be_asked_again():
    """The end may meet a message that is being written: that is no other failure than an end at rest."""
    server, searches = RpcServer("127.0.0.1:0"), Restless()
    server.add(search_pb2_grpc.add_SearchServicer_to_server, searches)
    async with server:
        to_server = channel(server.address)
        stream = KeptStream(search_pb2_grpc.SearchStub(to_server).SearchStream, search_pb2.StreamedSearch)

        async def ask() -> None:
            while searches.streams < STREAMS:
                with pytest.raises(Unavailable, match="the server ended the stream"):
                    await stream.ask({"search": search_pb2.SearchRequest(collection="c")}, 30.0, ())

        async with asyncio.timeout(60):
            await asyncio.gather(*(ask() for _ in range(CALLERS)))
        await stream.close()
        await to_server.close()
