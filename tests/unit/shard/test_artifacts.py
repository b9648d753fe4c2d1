"""What a shard server holds of upgrades."""

import asyncio
import hashlib

import pytest

from kintsugi.errors import NotFound, Unavailable
from shard.artifacts import Artifacts

DATA = b"a projection"
DIGEST = hashlib.sha256(DATA).hexdigest()


class Cache:
    def __init__(self, *held):
        self.held = {hashlib.sha256(data).hexdigest(): data for data in held}
        self.kept = set(self.held)
        self.is_away = False

    async def lasts(self, digest):
        if self.is_away:
            raise Unavailable("redis is away")
        return digest in self.held

    async def keep(self, digest):
        self.kept.add(digest)

    async def get(self, digest):
        if self.is_away:
            raise Unavailable("redis is away")
        return self.held.get(digest)

    async def put(self, data):
        self.held[hashlib.sha256(data).hexdigest()] = data
        return hashlib.sha256(data).hexdigest()


class Peers:
    def __init__(self, **held):
        self.held = held

    async def ask(self, member, digest):
        if digest not in self.held[member]:
            raise NotFound(f"artifact {digest} is not held here")
        return self.held[member][digest]


def artifacts(folder, cache, peers=None):
    peers = peers or Peers()
    return Artifacts(folder / "artifacts", cache, lambda: sorted(peers.held), peers.ask)


async def test_an_artifact_is_kept_once_it_was_read(tmp_path):
    """Redis may lose it afterwards, and gets it back."""
    cache = Cache(DATA)
    assert await artifacts(tmp_path, cache).get(DIGEST) == DATA
    cache.held.clear()
    cache.kept.clear()
    again = artifacts(tmp_path, cache)
    assert again.held(DIGEST) == DATA
    assert await again.get(DIGEST) == DATA
    assert cache.held == {DIGEST: DATA}
    assert cache.kept == {DIGEST}


async def test_what_is_held_needs_no_redis(tmp_path):
    """A server starts during an outage."""
    cache = Cache(DATA)
    await artifacts(tmp_path, cache).get(DIGEST)
    cache.is_away = True
    assert await artifacts(tmp_path, cache).get(DIGEST) == DATA


async def test_a_peer_gives_what_redis_lost(tmp_path):
    """The first one that has it; what is another one is not believed."""
    peers = Peers(a={}, b={DIGEST: b"forged"}, c={DIGEST: DATA})
    cache = Cache()
    assert await artifacts(tmp_path, cache, peers).get(DIGEST) == DATA
    assert cache.held == {DIGEST: DATA}


async def test_what_a_peer_gives_replaces_what_is_damaged_in_redis(tmp_path):
    """Others would ask in vain there."""
    cache = Cache()
    cache.held[DIGEST] = b"damage"
    assert await artifacts(tmp_path, cache, Peers(a={DIGEST: DATA})).get(DIGEST) == DATA
    assert cache.held == {DIGEST: DATA}


async def test_an_artifact_that_nobody_has_is_told_with_all_reasons(tmp_path):
    """Whoever looks sees who was asked."""
    peers = Peers(a={}, b={DIGEST: b"forged"})
    with pytest.raises(Unavailable, match=r"redis has none; a: .* not held here; b has another one under its digest"):
        await artifacts(tmp_path, Cache(), peers).get(DIGEST)


async def test_a_damaged_file_counts_as_absent(tmp_path):
    """It is read again from elsewhere."""
    cache = Cache(DATA)
    holding = artifacts(tmp_path, cache)
    await holding.get(DIGEST)
    (tmp_path / "artifacts" / DIGEST).write_bytes(b"damage")
    with pytest.raises(NotFound, match="is damaged here"):
        holding.held(DIGEST)
    assert await holding.get(DIGEST) == DATA
    assert holding.held(DIGEST) == DATA


@pytest.mark.parametrize("digest", ["../registry.json", "", "A" * 64, "0" * 64])
def test_only_digests_are_looked_up(tmp_path, digest):
    """A name from outside never leads out of the folder."""
    (tmp_path / "registry.json").write_bytes(b"{}")
    with pytest.raises(NotFound):
        artifacts(tmp_path, Cache()).held(digest)


async def test_what_no_upgrade_names_is_removed(tmp_path):
    """The rest stays."""
    other = b"another"
    holding = artifacts(tmp_path, Cache(DATA, other))
    await holding.get(DIGEST)
    await holding.get(hashlib.sha256(other).hexdigest())
    holding.forget_all_but({DIGEST})
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [DIGEST]


async def test_many_may_fetch_the_same_artifact_at_once(tmp_path):
    """Replicas of one collection do, while others let go of what nobody names."""
    held = artifacts(tmp_path, Cache(DATA))
    for _ in range(20):
        await asyncio.gather(*(held.get(DIGEST) for _ in range(8)), asyncio.to_thread(held.forget_all_but, ()))
    assert await held.get(DIGEST) == DATA
