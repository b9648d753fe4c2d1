"""A served process: health, reflection, limits, errors and shutdown over real connections."""

import asyncio
import io
import json

import grpc
import grpc.aio
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kintsugi import errors, telemetry
from kintsugi.limits import DEFAULT_DEADLINE_S, MAX_MESSAGE_BYTES
from kintsugi.rpc.channels import ChannelPool, channel
from kintsugi.rpc.errors import from_rpc_error
from kintsugi.rpc.server import RpcServer, remaining_s
from kintsugi.v1 import documents_pb2, documents_pb2_grpc, search_pb2, search_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class FakeSearch(search_pb2_grpc.SearchServicer):
    """Does what the collection's name says."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.remaining = 0.0

    async def Search(self, request, context):
        self.remaining = remaining_s(context)
        if request.collection == "refused":
            raise errors.ResourceExhausted("too many searches are waiting", retry_delay_s=1.5)
        if request.collection == "defect":
            raise ValueError("secret detail")
        if request.collection == "abort":
            await context.abort(grpc.StatusCode.ABORTED, "by hand")
        if request.collection == "slow":
            self.entered.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return search_pb2.SearchResponse()


class FakeDocuments(documents_pb2_grpc.DocumentsServicer):
    async def BulkUpsert(self, request_iterator, context):
        async for request in request_iterator:
            if request.upsert.collection == "refused":
                raise errors.InvalidArgument("chunk", f"is {request.chunk}", "must be 0")
            if request.upsert.collection == "defect":
                raise ValueError("secret detail")
            yield documents_pb2.BulkUpsertResponse(chunk=request.chunk)


@pytest.fixture
async def served():
    """A server with two services, the search servicer behind it, and a channel to it."""
    search = FakeSearch()
    server = RpcServer("127.0.0.1:0")
    server.add(search_pb2_grpc.add_SearchServicer_to_server, search)
    server.add(documents_pb2_grpc.add_DocumentsServicer_to_server, FakeDocuments())
    async with server, channel(server.address) as connection:
        yield server, search, connection


@pytest.fixture
def log_lines():
    """What is logged during the test, parsed."""
    stream = io.StringIO()
    telemetry.configure_logging("json", "info", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


async def call(connection, collection, **options):
    """One search; raises the error of ours that comes back."""
    request = search_pb2.SearchRequest(collection=collection)
    try:
        return await search_pb2_grpc.SearchStub(connection).Search(request, **{"timeout": 10, **options})
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


async def refused(connection):
    """Calls until the server refuses."""
    while True:
        await call(connection, "fine")


async def malformed(connection, method, shape):
    """Calls a method with bytes that are no message; the error that comes back."""
    path = f"/kintsugi.v1.{method}"
    call = connection.stream_stream(path) if shape == "stream" else connection.unary_unary(path)
    try:
        if shape == "stream":
            await call(iter([b"\xff"]), timeout=10).read()
        else:
            await call(b"\x0a\x01\xff", timeout=10)
    except grpc.RpcError as error:
        return from_rpc_error(error)
    return None


async def bulk(connection, collection):
    """A bulk upsert of two chunks; the answers until an error, and the error."""

    async def chunks():
        for chunk, name in enumerate(["fine", collection]):
            yield documents_pb2.BulkUpsertRequest(chunk=chunk, upsert=documents_pb2.UpsertRequest(collection=name))

    answers: list[int] = []
    stream = documents_pb2_grpc.DocumentsStub(connection).BulkUpsert(chunks(), timeout=10)
    try:
        while (answer := await stream.read()) is not grpc.aio.EOF:
            answers.append(answer.chunk)
    except grpc.RpcError as error:
        return answers, from_rpc_error(error)
    return answers, None


async def test_health_of_the_process_and_each_service_follows_set_serving(served):
    """A fresh server is not serving; set_serving changes "" and every service at once."""
    server, _, connection = served
    stub = health_pb2_grpc.HealthStub(connection)
    for expected in (NOT_SERVING, SERVING, NOT_SERVING):
        await server.set_serving(serving=expected == SERVING)
        for service in ("", "kintsugi.v1.Search", "kintsugi.v1.Documents"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == expected, service


async def test_reflection_lists_every_service(served):
    """A generic client discovers our services, health and reflection itself."""
    _, _, connection = served
    stub = reflection_pb2_grpc.ServerReflectionStub(connection)
    calls = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)
    names = [service.name async for answer in calls for service in answer.list_services_response.service]
    assert sorted(names) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "kintsugi.v1.Documents",
        "kintsugi.v1.Search",
    ]


async def test_error_of_ours_arrives_with_its_details(served):
    """What a unary handler raises is what the caller gets."""
    with pytest.raises(errors.ResourceExhausted, match="^too many searches are waiting$") as caught:
        await call(served[2], "refused")
    assert caught.value.retry_delay_s == 1.5


async def test_defect_is_logged_and_hidden(served, log_lines):
    """The caller of a failing handler learns the request id; the traceback is in the log under the same id."""
    with pytest.raises(errors.Internal) as caught:
        await call(served[2], "defect", metadata=[("x-request-id", "abc-1")])
    assert str(caught.value) == "internal error, request abc-1"
    (line,) = [line for line in log_lines() if line["event"] == "rpc_failed"]
    assert line["request_id"] == "abc-1"
    assert line["method"] == "/kintsugi.v1.Search/Search"
    assert "ValueError: secret detail" in line["exception"]


async def test_malformed_request_id_is_replaced(served, log_lines):
    """A request id that could forge log lines is not taken over."""
    with pytest.raises(errors.Internal) as caught:
        await call(served[2], "defect", metadata=[("x-request-id", "a b" * 100)])
    assert "a b" not in str(caught.value)


async def test_streaming_handler_answers_then_reports_its_error(served):
    """Answers before the failure of a stream arrive, then the error of ours."""
    answers, error = await bulk(served[2], "refused")
    assert answers == [0]
    assert isinstance(error, errors.InvalidArgument)
    assert error.field == "chunk"


async def test_defect_in_a_stream_is_hidden(served, log_lines):
    """Streams hide tracebacks as unary calls do."""
    _, error = await bulk(served[2], "defect")
    assert isinstance(error, errors.Internal)
    assert "secret" not in str(error)


async def test_stream_without_errors_is_untouched(served):
    """The interceptor passes all answers on."""
    assert await bulk(served[2], "fine") == ([0, 1], None)


async def test_abort_by_hand_passes_through(served):
    """A handler that aborts itself keeps its status."""
    with pytest.raises(errors.Aborted, match="^by hand$"):
        await call(served[2], "abort")


async def test_cancelled_call_cancels_its_handler(served):
    """Cancellation reaches the handler and is not turned into an error."""
    _, search, connection = served
    task = asyncio.create_task(call(connection, "slow"))
    await asyncio.wait_for(search.entered.wait(), 10)
    task.cancel()
    await asyncio.wait_for(search.cancelled.wait(), 10)


async def test_remaining_time_is_the_deadline_or_the_assumed_one(served):
    """Callers without a deadline get the documented 10 seconds."""
    _, search, connection = served
    await call(connection, "fine", timeout=5)
    assert 0 < search.remaining < 6  # grpc rounds up
    await call(connection, "fine", timeout=None)
    assert search.remaining == DEFAULT_DEADLINE_S


async def test_messages_up_to_the_limit_are_taken(served):
    """gRPC's own 4 MiB would refuse legal batches; ours are refused only above our bound."""
    await call(served[2], "a" * 2**23)
    with pytest.raises(errors.ResourceExhausted):
        await call(served[2], "a" * (MAX_MESSAGE_BYTES + 1))


async def test_taken_port_is_refused(served):
    """Two servers never share a port silently."""
    with pytest.raises(errors.Unavailable, match=r"^listen is 127.0.0.1:\d+, must be a free port"):
        async with RpcServer(served[0].address):
            pytest.fail("the second server started")


async def test_stop_finishes_calls_in_flight(served):
    """Draining refuses new calls and answers the ones it has."""
    server, search, connection = served
    running = asyncio.create_task(call(connection, "slow"))
    await asyncio.wait_for(search.entered.wait(), 10)
    stopping = asyncio.create_task(server.stop(10))
    async with channel(server.address) as late:
        with pytest.raises(errors.Unavailable):
            await refused(late)
    search.release.set()
    await stopping
    assert await running == search_pb2.SearchResponse()


async def test_pool_connects_an_address_once_and_closes_what_is_gone():
    """Channels are shared per address and closed when their address leaves."""
    pool = ChannelPool()
    first = pool.get("127.0.0.1:1")
    assert pool.get("127.0.0.1:1") is first
    pool.get("127.0.0.1:2")
    await pool.keep_only({"127.0.0.1:2"})
    assert pool.addresses == {"127.0.0.1:2"}
    await pool.close()
    assert not pool.addresses


async def test_a_message_that_cannot_be_parsed_is_the_callers_fault(served, log_lines):
    """INVALID_ARGUMENT with details, for unary and streaming calls alike; nothing is logged as a defect."""
    _, _, connection = served
    for method, shape, reason in (
        ("Search/Search", "unary", "bad UTF-8"),
        ("Documents/BulkUpsert", "stream", "corrupt"),
    ):
        error = await malformed(connection, method, shape)
        assert isinstance(error, errors.InvalidArgument)
        assert error.field == "request"
        assert reason in error.message
    assert not [line for line in log_lines() if line["event"] == "rpc_failed"]
