"""kintsugi.v1.Search over coordinator.search."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc.aio

from coordinator.deadline import Clock, Deadline
from coordinator.query import check_batch, check_search
from coordinator.search import Searches
from kintsugi import limits
from kintsugi.rpc.errors import too_large
from kintsugi.rpc.streaming import StreamedCalls, TimeLeft, UnaryMethod
from kintsugi.v1 import search_pb2, search_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
Response = TypeVar("Response", search_pb2.SearchResponse, search_pb2.SearchBatchResponse)


class SearchService(search_pb2_grpc.SearchServicer):
    """Streams end when `draining` is set."""

    def __init__(self, searches: Searches, clock: Clock, draining: asyncio.Event) -> None:
        self._searches = searches
        self._clock = clock
        self._streamed = streamed_calls(self, draining)

    async def Search(self, request: search_pb2.SearchRequest, context: Context | TimeLeft) -> search_pb2.SearchResponse:
        answer = await self._searches.search(check_search(request), Deadline.of_call(context, self._clock))
        hits = answer.hits
        return _bounded(hits.response(answer.model, answer.coverage, answer.projected_model, answer.unmigrated))

    async def SearchBatch(
        self, request: search_pb2.SearchBatchRequest, context: Context | TimeLeft
    ) -> search_pb2.SearchBatchResponse:
        answer = await self._searches.search(check_batch(request), Deadline.of_call(context, self._clock))
        hits = answer.hits
        return _bounded(hits.batch_response(answer.model, answer.coverage, answer.projected_model, answer.unmigrated))

    async def SearchStream(  # type: ignore[override]  # the stubs know handlers that yield only
        self, _messages: AsyncIterator[search_pb2.StreamedSearch], context: Context
    ) -> None:
        await self._streamed.run(context, request_of)


def streamed_calls(service: Any, draining: asyncio.Event) -> StreamedCalls:
    """The calls of a SearchServicer, as messages on streams."""
    methods: dict[type[Any], UnaryMethod[Any]] = {
        search_pb2.SearchRequest: UnaryMethod("kintsugi.v1.Search/Search", service.Search),
        search_pb2.SearchBatchRequest: UnaryMethod("kintsugi.v1.Search/SearchBatch", service.SearchBatch),
    }
    return StreamedCalls(methods, _result, draining)


def request_of(message: search_pb2.StreamedSearch) -> search_pb2.SearchRequest | search_pb2.SearchBatchRequest | None:
    """What a message on a stream asks, None when it gives up."""
    kind = message.WhichOneof("request")
    if kind is None:
        return None
    return message.search if kind == "search" else message.batch


def _result(
    number: int, answer: search_pb2.SearchResponse | search_pb2.SearchBatchResponse | None, status: bytes
) -> search_pb2.StreamedResult:
    if isinstance(answer, search_pb2.SearchBatchResponse):
        return search_pb2.StreamedResult(number=number, batch=answer)
    return search_pb2.StreamedResult(number=number, search=answer, status=status)


def _bounded(response: Response) -> Response:
    if response.ByteSize() > limits.MAX_MESSAGE_BYTES:
        raise too_large(f"{response.ByteSize()} bytes")
    return response
