"""The calls to shard servers: stubs by address, deadlines that travel, failures as our errors."""

from collections.abc import Callable
from typing import TypeVar

import grpc
import grpc.aio

from coordinator.deadline import Deadline
from kintsugi.errors import KintsugiError, ResourceExhausted
from kintsugi.internal.v1 import shard_pb2, shard_pb2_grpc
from kintsugi.position import Position
from kintsugi.rpc.errors import from_rpc_error, too_large

Request = TypeVar("Request")
Response = TypeVar("Response")
StubOf = Callable[[str], "shard_pb2_grpc.ShardAsyncStub"]


def position_message(position: Position | None) -> shard_pb2.Position | None:
    if position is None:
        return None
    return shard_pb2.Position(epoch=position.epoch, seq=position.seq, digest=position.digest)


class ShardCalls:
    def __init__(self, stub_of: StubOf) -> None:
        self._stub_of = stub_of

    async def search(
        self, address: str, request: shard_pb2.ShardSearchRequest, deadline: Deadline
    ) -> shard_pb2.ShardSearchResponse:
        return await _call(self._stub_of(address).Search, request, deadline)

    async def get(
        self, address: str, request: shard_pb2.GetDocumentsRequest, deadline: Deadline
    ) -> shard_pb2.GetDocumentsResponse:
        return await _call(self._stub_of(address).GetDocuments, request, deadline)

    async def count(
        self, address: str, request: shard_pb2.CountDocumentsRequest, deadline: Deadline
    ) -> shard_pb2.CountDocumentsResponse:
        return await _call(self._stub_of(address).CountDocuments, request, deadline)

    async def match(
        self, address: str, request: shard_pb2.MatchDocumentsRequest, deadline: Deadline
    ) -> shard_pb2.MatchDocumentsResponse:
        return await _call(self._stub_of(address).MatchDocuments, request, deadline)

    async def scroll(
        self, address: str, request: shard_pb2.ScrollDocumentsRequest, deadline: Deadline
    ) -> shard_pb2.ScrollDocumentsResponse:
        return await _call(self._stub_of(address).ScrollDocuments, request, deadline)

    async def next_documents(
        self, address: str, request: shard_pb2.NextShardDocumentsRequest, deadline: Deadline
    ) -> shard_pb2.NextShardDocumentsResponse:
        return await _call(self._stub_of(address).NextDocuments, request, deadline)


async def _call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, deadline: Deadline
) -> Response:
    try:
        return await method(request, timeout=deadline.remaining_s)
    except grpc.RpcError as error:
        raise _explained(from_rpc_error(error)) from error


def _explained(error: KintsugiError) -> KintsugiError:
    # gRPC says in words only that it refused to receive a message, with the code that full queues have too.
    if isinstance(error, ResourceExhausted) and "larger than max" in error.message:
        return too_large(error.message)
    return error
