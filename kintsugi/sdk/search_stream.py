"""How the client sends searches to a coordinator: on a stream that stays open, for a message costs half as much as a call.

Searches with long answers, or long themselves, take a call of their own, so that short ones do not stand behind them; so do all
of them where there are no streams.
"""

from typing import TYPE_CHECKING, Any

from kintsugi.rpc.open_stream import LONG_ANSWER_HITS, KeptStream, NoStreams
from kintsugi.telemetry.tracing import client_metadata
from kintsugi.v1 import search_pb2

if TYPE_CHECKING:
    from kintsugi.v1.search_pb2_grpc import SearchAsyncStub

Request = search_pb2.SearchRequest | search_pb2.SearchBatchRequest

_LONG_REQUEST_BYTES = 2**18


class SearchStream:
    """Of one coordinator."""

    def __init__(self, stub: "SearchAsyncStub") -> None:
        self._stub = stub
        self._stream: KeptStream[search_pb2.StreamedResult] = KeptStream(stub.SearchStream, search_pb2.StreamedSearch)

    async def search(self, request: search_pb2.SearchRequest, timeout_s: float) -> search_pb2.SearchResponse:
        """Raises RpcError or the KintsugiError of the search."""
        told = None if _may_be_long(request, 1) else await self._told("Search", "search", request, timeout_s)
        return await self._stub.Search(request, timeout=timeout_s) if told is None else told.search

    async def search_batch(
        self, request: search_pb2.SearchBatchRequest, timeout_s: float
    ) -> search_pb2.SearchBatchResponse:
        """Raises RpcError or the KintsugiError of the search."""
        queries = request.vectors[0].block.count
        told = None if _may_be_long(request, queries) else await self._told("SearchBatch", "batch", request, timeout_s)
        return await self._stub.SearchBatch(request, timeout=timeout_s) if told is None else told.batch

    async def close(self) -> None:
        """Ends the stream; what waits on it fails."""
        await self._stream.close()

    async def _told(
        self, method: str, field: str, request: Request, timeout_s: float
    ) -> search_pb2.StreamedResult | None:
        """The answer by the stream; None where there are no streams."""
        asked: dict[str, Any] = {field: request}
        try:
            return await self._stream.ask(asked, timeout_s, client_metadata(f"kintsugi.v1.Search/{method}"))
        except NoStreams:
            return None


def _may_be_long(request: Request, queries: int) -> bool:
    options = request.options
    hits = queries * max(1, options.k) * max(1, options.group_by.size)
    return (
        options.exact
        or options.fields.attributes
        or options.fields.text
        or options.tell_unmigrated
        or hits > LONG_ANSWER_HITS
        or request.ByteSize() > _LONG_REQUEST_BYTES
    )
