"""kintsugi.v1.Search over coordinator.search."""

from typing import Any, TypeVar

import grpc.aio

from coordinator.deadline import Clock, Deadline
from coordinator.query import check_batch, check_search
from coordinator.search import Searches
from kintsugi import limits
from kintsugi.rpc.errors import too_large
from kintsugi.v1 import search_pb2, search_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
Response = TypeVar("Response", search_pb2.SearchResponse, search_pb2.SearchBatchResponse)


class SearchService(search_pb2_grpc.SearchServicer):
    def __init__(self, searches: Searches, clock: Clock) -> None:
        self._searches = searches
        self._clock = clock

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        answer = await self._searches.search(check_search(request), Deadline.of_call(context, self._clock))
        hits = answer.hits
        return _bounded(hits.response(answer.model, answer.coverage, answer.projected_model, answer.unmigrated))

    async def SearchBatch(
        self, request: search_pb2.SearchBatchRequest, context: Context
    ) -> search_pb2.SearchBatchResponse:
        answer = await self._searches.search(check_batch(request), Deadline.of_call(context, self._clock))
        hits = answer.hits
        return _bounded(hits.batch_response(answer.model, answer.coverage, answer.projected_model, answer.unmigrated))


def _bounded(response: Response) -> Response:
    if response.ByteSize() > limits.MAX_MESSAGE_BYTES:
        raise too_large(f"{response.ByteSize()} bytes")
    return response
