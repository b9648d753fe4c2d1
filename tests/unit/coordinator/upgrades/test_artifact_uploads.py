"""Uploads of artifacts, over real gRPC into a real Valkey: what is taken, what is refused, and that nothing else stays."""

import time

import grpc.aio
import pytest
from harness.waiting import until_empty

from coordinator.artifact_uploads import ArtifactUploads
from coordinator.services.upgrades import UpgradesService
from kintsugi import limits
from kintsugi.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from kintsugi.projections.artifact import digest
from kintsugi.registry.artifacts import ArtifactCache
from kintsugi.rpc.errors import grpc_errors
from kintsugi.rpc.interceptor import ErrorInterceptor
from kintsugi.v1 import upgrades_pb2, upgrades_pb2_grpc

DATA = b"a projection"
MOST = limits.MAX_ARTIFACT_CHUNK_BYTES


@pytest.fixture
def cache(redis, keys):
    return ArtifactCache(redis, keys)


@pytest.fixture
async def stub(cache):
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    uploads = ArtifactUploads(cache)
    service = UpgradesService(None, uploads, None, None, 5.0, time.monotonic)
    upgrades_pb2_grpc.add_UpgradesServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield upgrades_pb2_grpc.UpgradesStub(channel)
    await server.stop(None)


def message(data, **first):
    return upgrades_pb2.PutArtifactRequest(data=data, **first)


def first_of(data, part):
    return message(part, digest=digest(data), total_bytes=len(data))


async def put(stub, messages, timeout_s=20.0):
    with grpc_errors():
        return await stub.PutArtifact(iter(messages), timeout=timeout_s)


async def begun(stub, timeout_s=60.0):
    """An upload whose client sends a part and no end."""
    call = stub.PutArtifact(timeout=timeout_s)
    await call.write(first_of(DATA, DATA[:5]))
    return call


async def there_are(redis, count):
    async def problem():
        found = await redis.dbsize()
        return "" if found == count else f"{found} keys, must be {count}"

    await until_empty(problem)


async def test_an_artifact_is_put_together_from_its_chunks(stub, cache):
    """Again with the same result."""
    data = bytes(MOST) + DATA
    for _ in range(2):
        answer = await put(stub, [first_of(data, data[:MOST]), message(data[MOST:])])
        assert answer.digest == digest(data)
    assert await cache.get(digest(data)) == data


@pytest.mark.parametrize(
    ("messages", "field", "match"),
    [
        ([], "digest", "must be given in the first message"),
        ([message(DATA, total_bytes=len(DATA))], "digest", "is '', must be 64 hexadecimal digits"),
        ([message(DATA, digest="../x", total_bytes=4)], "digest", "is '../x', must be 64 hexadecimal digits"),
        ([message(DATA, digest=digest(DATA))], "total_bytes", "is 0, must be 1 to 100663296"),
        ([message(DATA, digest=digest(DATA), total_bytes=96 * 2**20 + 1)], "total_bytes", "must be 1 to 100663296"),
        ([first_of(DATA, b"")], "data", "has 0 bytes, must have 1 to 1048576"),
        ([first_of(bytes(MOST + 1), bytes(MOST + 1))], "data", "has 1048577 bytes, must have 1 to 1048576"),
        ([first_of(DATA, DATA[:5]), first_of(DATA, DATA[5:])], "digest", "must be given in the first message only"),
        ([first_of(DATA, DATA[:5])], "total_bytes", "is 12, must be 5: so many came"),
        ([first_of(DATA, DATA), message(b"x")], "data", "makes 13 bytes, must make 12"),
        ([first_of(DATA, DATA[:-1] + b"x")], "digest", "that of the bytes that came"),
    ],
)
async def test_what_is_no_artifact_is_refused_by_its_field(stub, redis, messages, field, match):
    """With value and bound; nothing stays."""
    with pytest.raises(InvalidArgument, match=match) as raised:
        await put(stub, messages)
    assert raised.value.field == field
    assert await redis.dbsize() == 0


async def test_an_upload_whose_client_goes_away_leaves_nothing(stub, redis):
    """At once, and not when it would have expired."""
    call = await begun(stub)
    await there_are(redis, 1)
    call.cancel()
    await there_are(redis, 0)


async def test_an_upload_ends_with_its_deadline(stub, redis):
    """Also when its client sends no more."""
    call = await begun(stub, timeout_s=0.3)
    with pytest.raises(DeadlineExceeded), grpc_errors():
        await call
    await there_are(redis, 0)


async def test_so_many_uploads_run_at_once(stub, cache, redis):
    """One more is told to come again; there is room as soon as one ends."""
    running = [await begun(stub) for _ in range(limits.MAX_ARTIFACT_UPLOADS)]
    await there_are(redis, len(running))
    with pytest.raises(ResourceExhausted, match="8 uploads of artifacts are under way here, there may be 8") as raised:
        await put(stub, [first_of(DATA, DATA)])
    assert (raised.value.reason, raised.value.retry_delay_s) == ("TOO_MANY_UPLOADS", 1.0)
    running.pop().cancel()
    await there_are(redis, len(running))
    await put(stub, [first_of(DATA, DATA)])
    assert await cache.get(digest(DATA)) == DATA
    for call in running:
        call.cancel()
    await there_are(redis, 1)
