"""How the client sends searches to a coordinator: on a stream that stays open, for a message costs half as much as a call.

1. The stream is opened by the first search, and opened again after it broke.
2. Searches with long answers, or long themselves, take a call of their own, so that short ones do not stand behind them.
3. A coordinator of a release before, or a proxy, that knows no streams gets calls; it is asked again now and then.
"""

import time
from contextvars import Context
from typing import TYPE_CHECKING

from kintsugi.rpc.open_stream import NoStreams, OpenStream
from kintsugi.rpc.streaming import LONG_ANSWER_HITS
from kintsugi.telemetry.tracing import client_metadata
from kintsugi.v1 import search_pb2

if TYPE_CHECKING:
    from kintsugi.v1.search_pb2_grpc import SearchAsyncStub

_LONG_REQUEST_BYTES = 2**18
_ASKED_AGAIN_S = 60.0


class SearchStream:
    """Of one coordinator."""

    def __init__(self, stub: "SearchAsyncStub") -> None:
        self._stub = stub
        self._stream: OpenStream[search_pb2.StreamedResult] | None = None
        self._calls_until = float("-inf")

    async def search(self, request: search_pb2.SearchRequest, timeout_s: float) -> search_pb2.SearchResponse:
        """Raises RpcError or the KintsugiError of the search."""
        if not (_may_be_long(request, 1) or self._knows_calls_only):
            try:
                return (await self._ask("Search", {"search": request}, timeout_s)).search
            except NoStreams:
                self._calls_until = time.monotonic() + _ASKED_AGAIN_S
        return await self._stub.Search(request, timeout=timeout_s)

    async def search_batch(
        self, request: search_pb2.SearchBatchRequest, timeout_s: float
    ) -> search_pb2.SearchBatchResponse:
        """Raises RpcError or the KintsugiError of the search."""
        if not (_may_be_long(request, request.vectors[0].block.count) or self._knows_calls_only):
            try:
                return (await self._ask("SearchBatch", {"batch": request}, timeout_s)).batch
            except NoStreams:
                self._calls_until = time.monotonic() + _ASKED_AGAIN_S
        return await self._stub.SearchBatch(request, timeout=timeout_s)

    async def close(self) -> None:
        """Ends the stream; what waits on it fails."""
        if self._stream is not None:
            await self._stream.close()

    @property
    def _knows_calls_only(self) -> bool:
        return time.monotonic() < self._calls_until

    async def _ask(
        self,
        method: str,
        request: dict[str, search_pb2.SearchRequest | search_pb2.SearchBatchRequest],
        timeout_s: float,
    ) -> search_pb2.StreamedResult:
        if self._stream is None or self._stream.is_broken:
            # It outlives the search that opens it, and has no part in its trace.
            self._stream = Context().run(self._open)
        return await self._stream.ask(request, timeout_s, client_metadata(f"kintsugi.v1.Search/{method}"))

    def _open(self) -> OpenStream[search_pb2.StreamedResult]:
        return OpenStream(self._stub.SearchStream(), search_pb2.StreamedSearch)


def _may_be_long(request: search_pb2.SearchRequest | search_pb2.SearchBatchRequest, queries: int) -> bool:
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
