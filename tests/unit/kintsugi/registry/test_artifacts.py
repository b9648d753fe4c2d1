"""Artifacts in Redis: uploaded in chunks or not at all, kept by digest, believed only when whole."""

import asyncio
import hashlib

import pytest

from kintsugi.errors import InvalidArgument, Unavailable
from kintsugi.limits import MAX_ARTIFACT_BYTES, MAX_ARTIFACT_CHUNK_BYTES
from kintsugi.projections.artifact import chunks
from kintsugi.registry.artifacts import ArtifactCache, check_digest

FOR_GOOD = -1
LARGE = bytes(range(256)) * (MAX_ARTIFACT_CHUNK_BYTES // 256) * 2 + b"end"


def name_of(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def cache(redis, keys):
    return ArtifactCache(redis, keys)


@pytest.mark.parametrize("data", [b"x", bytes(MAX_ARTIFACT_CHUNK_BYTES), LARGE])
async def test_what_was_put_is_read_by_its_digest(cache, redis, data):
    """Byte for byte, of any number of chunks; putting it again changes nothing, and nothing else stays."""
    names = [await cache.put(data) for _ in range(2)]
    assert names == [name_of(data)] * 2
    assert await cache.get(names[0]) == data
    assert await redis.dbsize() == 1


def test_chunks_are_all_of_the_bytes():
    """Each as large as may be, but for the last."""
    assert [len(chunk) for chunk in chunks(LARGE)] == [MAX_ARTIFACT_CHUNK_BYTES, MAX_ARTIFACT_CHUNK_BYTES, 3]
    assert b"".join(chunks(LARGE)) == LARGE
    assert list(chunks(b"")) == []


async def test_nobody_reads_an_upload_that_is_not_complete(cache, redis, keys):
    """It has a name of its own, and expires if its coordinator dies."""
    async with cache.upload(name_of(LARGE), len(LARGE)) as upload:
        for chunk in chunks(LARGE):
            assert await cache.get(name_of(LARGE)) is None
            await upload.append(chunk)
        (key,) = [key async for key in redis.scan_iter()]
        assert key.decode().startswith(keys.artifact_upload(name_of(LARGE), ""))
        assert 0 < await redis.ttl(key) <= 600
    assert [key.decode() async for key in redis.scan_iter()] == [keys.artifact(name_of(LARGE))]


@pytest.mark.parametrize(
    ("name", "total_bytes", "sent", "match"),
    [
        (name_of(b"data"), 4, [b"da"], "total_bytes is 4, must be 2: so many came"),
        (name_of(b"data"), 4, [], "total_bytes is 4, must be 0: so many came"),
        (name_of(b"data"), 3, [b"da", b"ta"], "data makes 4 bytes, must make 3, as total_bytes says"),
        (name_of(b"data"), 4, [b"da", b"te"], f"digest is {name_of(b'data')}, must be {name_of(b'date')}"),
        (name_of(b""), 0, [], f"total_bytes is 0, must be 1 to {MAX_ARTIFACT_BYTES}"),
        (name_of(b""), MAX_ARTIFACT_BYTES + 1, [], f"must be 1 to {MAX_ARTIFACT_BYTES}"),
    ],
)
async def test_an_upload_of_other_bytes_leaves_nothing(cache, redis, name, total_bytes, sent, match):
    """Too few, too many, or others than its digest says."""

    async def run():
        async with cache.upload(name, total_bytes) as upload:
            for chunk in sent:
                await upload.append(chunk)

    with pytest.raises(InvalidArgument, match=match):
        await run()
    assert await redis.dbsize() == 0


async def test_an_upload_that_is_cancelled_leaves_nothing(cache, redis):
    """A client went away."""
    arrived = asyncio.Event()

    async def run():
        async with cache.upload(name_of(b"data"), 4) as upload:
            await upload.append(b"da")
            arrived.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await arrived.wait()
    assert await redis.dbsize() == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await redis.dbsize() == 0


@pytest.mark.parametrize("sent_after", [[b"ta"], []])
async def test_an_upload_that_redis_lost_fails(cache, redis, sent_after):
    """While it arrives or at its end; what came afterwards is no artifact."""

    async def run():
        async with cache.upload(name_of(b"data" if sent_after else b"da"), 4 if sent_after else 2) as upload:
            await upload.append(b"da")
            await redis.flushall()
            for chunk in sent_after:
                await upload.append(chunk)

    with pytest.raises(Unavailable, match="was lost or took too long"):
        await run()
    assert await redis.dbsize() == 0


async def test_artifacts_end_soon_unless_they_are_kept(cache, redis, keys):
    """Kept ones stay so when they are put again, and end soon when they are dropped. What is not there takes no harm."""
    name = await cache.put(b"data")
    assert 0 < await redis.ttl(keys.artifact(name)) <= 600
    await cache.keep(name)
    assert await redis.ttl(keys.artifact(name)) == FOR_GOOD
    await cache.put(b"data")
    assert await redis.ttl(keys.artifact(name)) == FOR_GOOD
    await cache.drop(name)
    assert 0 < await redis.ttl(keys.artifact(name)) <= 600
    await cache.keep("0" * 64)
    await cache.drop("0" * 64)
    assert await cache.get("0" * 64) is None


async def test_what_ends_within_a_minute_does_not_last(cache, redis, keys):
    """A plan that names it might be heard of too late."""
    name = await cache.put(b"data")
    assert await cache.lasts(name)
    await redis.expire(keys.artifact(name), 50)
    assert not await cache.lasts(name)
    await cache.keep(name)
    assert await cache.lasts(name)
    assert not await cache.lasts("0" * 64)


async def test_damaged_artifact_is_absent(cache, redis, keys):
    """Whoever reads takes it from somewhere else, and puts it back."""
    name = await cache.put(b"data")
    await redis.set(keys.artifact(name), b"date")
    assert await cache.get(name) is None
    await cache.put(b"data")
    assert await cache.get(name) == b"data"


@pytest.mark.parametrize("name", ["", "0" * 63, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n"])
def test_only_digests_name_artifacts(name):
    """What is none never becomes part of a key."""
    with pytest.raises(InvalidArgument, match="^plan.bridge is .* must be 64 hexadecimal digits"):
        check_digest(name, "plan.bridge")
