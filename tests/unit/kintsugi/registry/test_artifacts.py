"""Artifacts in Redis: kept by digest, believed only when whole."""

import hashlib

import pytest

from kintsugi.errors import InvalidArgument
from kintsugi.projections.artifact import MAX_BYTES
from kintsugi.registry.artifacts import ArtifactCache


@pytest.fixture
def cache(redis, keys):
    return ArtifactCache(redis, keys)


async def test_what_was_put_is_read_by_its_digest(cache):
    """Byte for byte; putting it again changes nothing."""
    data = bytes(range(256))
    names = [await cache.put(data) for _ in range(2)]
    assert names == [hashlib.sha256(data).hexdigest()] * 2
    assert await cache.get(names[0]) == data


async def test_dropped_artifacts_end_soon_unless_they_are_put_again(cache, redis, keys):
    """The plan that puts them again may not be in the registry yet. Dropping what is not there does no harm."""
    name = await cache.put(b"data")
    await cache.drop(name)
    assert 0 < await redis.ttl(keys.artifact(name)) <= 600
    await cache.put(b"data")
    assert await redis.ttl(keys.artifact(name)) == -1
    await cache.drop("0" * 64)
    assert await cache.get("0" * 64) is None


async def test_damaged_artifact_is_absent(cache, redis, keys):
    """Whoever reads takes it from somewhere else."""
    name = await cache.put(b"data")
    await redis.set(keys.artifact(name), b"date")
    assert await cache.get(name) is None


@pytest.mark.parametrize("size", [0, MAX_BYTES + 1])
async def test_sizes_are_bounded(cache, size):
    """Redis must not fill with what no server would take."""
    with pytest.raises(InvalidArgument, match=f"artifact has {size} bytes"):
        await cache.put(bytes(size))
