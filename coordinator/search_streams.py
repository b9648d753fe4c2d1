"""Sends searches to shard servers on streams that stay open: a message costs a third of a call.

1. One stream per address. When it breaks, all that wait on it fail as their calls would have: their shards are asked again by
   fanout.
2. Searches whose answers may be long take a call of their own, so that short ones do not stand behind them.
3. A shard server of the release before has no streams: it gets calls.
"""

from coordinator.deadline import Deadline
from coordinator.shards import ShardCalls, StubOf
from kintsugi.internal.v1 import shard_pb2
from kintsugi.rpc.open_stream import LONG_ANSWER_HITS, KeptStream, NoStreams
from kintsugi.telemetry.tracing import outgoing_metadata


class SearchStreams:
    def __init__(self, stub_of: StubOf, calls: ShardCalls) -> None:
        self._stub_of = stub_of
        self._calls = calls
        self._streams: dict[str, KeptStream[shard_pb2.StreamedAnswer]] = {}

    async def search(
        self, address: str, request: shard_pb2.ShardSearchRequest, deadline: Deadline
    ) -> shard_pb2.ShardSearchResponse:
        """Raises the KintsugiError of the search."""
        if _may_be_long(request):
            return await self._calls.search(address, request, deadline)
        stream = self._streams.get(address)
        if stream is None:
            # Asked for its stub anew each time: channels to addresses that nobody has are closed.
            stream = KeptStream(lambda: self._stub_of(address).SearchStream(), shard_pb2.StreamedSearch)
            self._streams[address] = stream
        try:
            told = await stream.ask({"search": request}, deadline.remaining_s, outgoing_metadata())
        except NoStreams:
            return await self._calls.search(address, request, deadline)
        return told.answer

    async def close(self) -> None:
        """Ends all streams; what waits on them fails."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            await stream.close()


def _may_be_long(request: shard_pb2.ShardSearchRequest) -> bool:
    size = max(1, request.group_by.size)
    return (
        request.exact
        or request.fields.attributes
        or request.fields.text
        or (request.count * request.k * size > LONG_ANSWER_HITS)
    )
