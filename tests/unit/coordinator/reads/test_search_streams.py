"""Searches over one open stream, between a real client and a real server: each is a call of its own."""

import asyncio
import time

import grpc
import pytest

from coordinator.deadline import Deadline
from coordinator.search_streams import SearchStreams
from coordinator.shards import ShardCalls
from kintsugi import telemetry
from kintsugi.errors import DeadlineExceeded, Internal, InvalidArgument, ResourceExhausted, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.internal.v1.shard_pb2_grpc import ShardServicer, ShardStub, add_ShardServicer_to_server
from kintsugi.limits import MAX_MESSAGE_BYTES
from kintsugi.rpc.channels import ChannelPool
from kintsugi.rpc.errors import ANSWER_TOO_LARGE
from kintsugi.rpc.server import RpcServer, remaining_s
from kintsugi.rpc.streaming import StreamedCalls, UnaryMethod

SOON_S = 10.0
# So long that a write takes a while.
LONG_BYTES = 4_000_000


class Shard(ShardServicer):
    """Does what the model's name says. Answers with the number of documents that k says."""

    def __init__(self, draining: asyncio.Event) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls = 0
        self.streams = 0
        self.remaining_s = 0.0
        self.request_ids: list[str] = []
        search = UnaryMethod("kintsugi.internal.v1.Shard/Search", self._search)
        self._streamed = StreamedCalls({shard_pb2.ShardSearchRequest: search}, self._pack, draining)

    async def Search(self, request, context):
        self.calls += 1
        return await self._search(request, context)

    async def SearchStream(self, request_iterator, context):
        self.streams += 1
        await self._streamed.run(context, lambda message: message.search if message.HasField("search") else None)

    async def _search(self, request, context):
        self.remaining_s = remaining_s(context)
        self.request_ids.append(telemetry.request_id())
        match request.model:
            case "full":
                raise ResourceExhausted("too many wait", reason="SEARCH_QUEUE_FULL", retry_delay_s=0.25)
            case "bad":
                raise InvalidArgument("queries", "has 3 bytes", "must have 4")
            case "defect":
                raise ValueError("secret detail")
            case "huge":
                return shard_pb2.ShardSearchResponse(scores=bytes(MAX_MESSAGE_BYTES))
            case "long":
                return shard_pb2.ShardSearchResponse(documents=request.k, scores=bytes(LONG_BYTES))
            case "slow":
                self.entered.set()
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return shard_pb2.ShardSearchResponse(documents=request.k)

    @staticmethod
    def _pack(number, answer, status):
        return shard_pb2.StreamedAnswer(number=number, answer=answer, status=status)


def add_calls_only(servicer, server):
    """Registers what a server of the release before knew."""
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.Search,
        request_deserializer=shard_pb2.ShardSearchRequest.FromString,
        response_serializer=shard_pb2.ShardSearchResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("kintsugi.internal.v1.Shard", {"Search": handler}),)
    )


class World:
    """A server, and the streams of a coordinator to it."""

    def __init__(self, *, streams: bool = True) -> None:
        self._pool = ChannelPool()
        self._with_streams = streams

    async def __aenter__(self):
        stub_of = lambda address: ShardStub(self._pool.get(address))  # noqa: E731
        self.streams = SearchStreams(stub_of, ShardCalls(stub_of))
        await self.start("127.0.0.1:0")
        return self

    async def start(self, listen):
        self.server = RpcServer(listen)
        self.shard = Shard(self.server.draining)
        self.server.add(add_ShardServicer_to_server if self._with_streams else add_calls_only, self.shard)
        await self.server.__aenter__()
        self.address = self.server.address

    async def __aexit__(self, *_):
        await self.streams.close()
        await self._pool.close()
        await self.server.stop(0)

    async def search(self, model="", k=1, timeout_s=SOON_S, **options):
        request = shard_pb2.ShardSearchRequest(model=model, k=k, count=1, **options)
        return await self.streams.search(self.address, request, Deadline.after(timeout_s, time.monotonic))


async def soon(event):
    async with asyncio.timeout(SOON_S):
        await event.wait()


async def test_many_searches_share_one_stream_and_each_gets_its_own_answer():
    """Answers find their searches in whatever order they come, and none makes a call of its own."""
    async with World() as world:
        answers = await asyncio.gather(*(world.search(k=k) for k in range(1, 300)))
        assert [answer.documents for answer in answers] == list(range(1, 300))
        assert (world.shard.streams, world.shard.calls) == (1, 0)


async def test_a_slow_search_does_not_hold_up_the_others():
    """While one waits, others behind it are answered."""
    async with World() as world:
        slow = asyncio.create_task(world.search("slow", k=7))
        await soon(world.shard.entered)
        assert (await world.search(k=8)).documents == 8
        world.shard.release.set()
        assert (await slow).documents == 7


@pytest.mark.parametrize(
    ("model", "kind", "reason", "said"),
    [
        ("full", ResourceExhausted, "SEARCH_QUEUE_FULL", "too many wait"),
        ("bad", InvalidArgument, "INVALID_ARGUMENT", "has 3 bytes"),
        ("defect", Internal, "INTERNAL", "internal error, request"),
        ("huge", ResourceExhausted, ANSWER_TOO_LARGE, "larger than a message"),
    ],
)
async def test_a_search_fails_alone_with_its_own_status(model, kind, reason, said):
    """Class, reason, delay and message survive; the stream, and who else is on it, do not notice; no traceback leaks."""
    async with World() as world:
        with pytest.raises(kind, match=said) as failed:
            await world.search(model)
        assert failed.value.reason == reason
        assert "secret" not in failed.value.message
        assert failed.value.retry_delay_s == (0.25 if model == "full" else None)
        assert (await world.search(k=3)).documents == 3
        assert world.shard.streams == 1


async def test_deadlines_and_request_ids_travel_with_each_search():
    """The server knows how long each may take, and for which request it works."""
    async with World() as world:
        for number, timeout_s in enumerate((5.0, 50.0)):
            telemetry.bind_request_id(f"request-{number}")
            await world.search(timeout_s=timeout_s)
            assert 0.5 * timeout_s < world.shard.remaining_s <= timeout_s
        assert world.shard.request_ids == ["request-0", "request-1"]


async def test_who_no_longer_waits_gives_its_search_up_at_the_server():
    """A late search and a cancelled one are cancelled there, and the stream goes on."""
    async with World() as world:
        with pytest.raises(DeadlineExceeded):
            await world.search("slow", timeout_s=0.2)
        await soon(world.shard.cancelled)
        world.shard.cancelled.clear()
        world.shard.entered.clear()
        given_up = asyncio.create_task(world.search("slow"))
        await soon(world.shard.entered)
        given_up.cancel()
        await soon(world.shard.cancelled)
        assert (await world.search(k=2)).documents == 2
        assert world.shard.streams == 1


async def test_who_gives_up_while_its_message_is_written_ends_nothing_else():
    """The stream goes on, and so does whoever waits on it: gRPC ends a stream whose write is cancelled."""
    async with World() as world:
        waiting = asyncio.create_task(world.search("slow", k=7))
        await soon(world.shard.entered)
        for turns in (1, 2, 3) * 3:
            given_up = asyncio.create_task(world.search(queries=bytes(LONG_BYTES)))
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait({given_up})
        world.shard.release.set()
        assert (await waiting).documents == 7
        assert world.shard.streams == 1


async def test_who_gives_up_while_its_answer_is_written_ends_nothing_else():
    """The answers behind it arrive: gRPC refuses to write on after a write that was cancelled."""
    async with World() as world:
        for _ in range(5):
            waiting = [asyncio.create_task(world.search("long", k=k)) for k in range(12)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for given_up in waiting[1::3]:
                given_up.cancel()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            kept = [k for k in range(12) if k % 3 != 1]
            assert [found[k].documents for k in kept] == kept
        assert world.shard.streams == 1


async def test_a_killed_server_fails_what_waits_and_is_found_again():
    """Whoever waits hears UNAVAILABLE at once; the next search after the restart opens a new stream."""
    async with World() as world:
        waiting = asyncio.create_task(world.search("slow"))
        await soon(world.shard.entered)
        await world.server.stop(0)
        with pytest.raises(Unavailable):
            await waiting
        await world.start(world.address)
        async with asyncio.timeout(SOON_S):
            while True:
                try:
                    assert (await world.search(k=4)).documents == 4
                    break
                except Unavailable:
                    continue


async def test_a_draining_server_answers_what_it_has_read_and_ends_the_stream():
    """A shutdown waits for the searches in work, not for the stream, which would never end."""
    async with World() as world:
        waiting = asyncio.create_task(world.search("slow", k=5))
        await soon(world.shard.entered)
        started = time.monotonic()
        stopping = asyncio.create_task(world.server.stop(60.0))
        await soon(world.server.draining)
        world.shard.release.set()
        assert (await waiting).documents == 5
        async with asyncio.timeout(SOON_S):
            await stopping
        assert time.monotonic() - started < 60.0
        with pytest.raises(Unavailable):
            await world.search()


@pytest.mark.parametrize(
    "options",
    [{"exact": True}, {"fields": {"text": True}}, {"fields": {"attributes": True}}, {"k": 1000, "count": 200}],
)
async def test_searches_with_long_answers_take_calls_of_their_own(options):
    """Short answers do not stand behind long ones."""
    async with World() as world:
        request = shard_pb2.ShardSearchRequest(**({"k": 1, "count": 1} | options))
        await world.streams.search(world.address, request, Deadline.after(SOON_S, time.monotonic))
        assert (world.shard.streams, world.shard.calls) == (0, 1)


async def test_a_server_without_streams_gets_calls():
    """In a rolling restart, servers of the release before answer all the same."""
    async with World(streams=False) as world:
        assert [(await world.search(k=k)).documents for k in (1, 2, 3)] == [1, 2, 3]
        assert world.shard.calls == 3


async def test_closing_fails_what_waits():
    """A coordinator that stops leaves nobody waiting for its deadline."""
    async with World() as world:
        waiting = asyncio.create_task(world.search("slow"))
        await soon(world.shard.entered)
        await world.streams.close()
        with pytest.raises(Unavailable):
            await waiting
