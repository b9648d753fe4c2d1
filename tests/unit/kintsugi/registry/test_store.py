"""The registry in a real Valkey."""

import asyncio

import pytest

from kintsugi.errors import AlreadyExists, FailedPrecondition, Unavailable
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Defaults, Member, Role, Snapshot
from kintsugi.registry.store import Conflict, Delete, RegistryStore


@pytest.fixture
def store(redis, keys):
    return RegistryStore(redis, keys)


def member(name):
    return Member(name, Role.SHARD, f"127.0.0.1:{len(name)}", "1")


async def test_init_creates_once(store):
    """The same cluster can be initialised again without effect, another one is refused."""
    assert await store.read() is None
    first = await store.init("c1", Defaults(2, 2))
    assert (first.version, first.view().defaults) == ((1, 1), Defaults(2, 2))
    assert await store.init("c1", Defaults(5, 5)) == first
    with pytest.raises(AlreadyExists, match="c1"):
        await store.init("c2", Defaults())


async def test_init_refuses_the_remains_of_a_registry(store, redis, keys):
    """A registry whose cluster key is gone is for recovery, not for init."""
    await store.init("c1", Defaults())
    await redis.delete(keys.cluster)
    with pytest.raises(FailedPrecondition, match="part of a registry"):
        await store.init("c2", Defaults())


async def test_commit_applies_to_what_was_read_or_not_at_all(store):
    """Of two commits on the same base the second conflicts and changes nothing."""
    base = await store.init("c1", Defaults())
    first = await store.commit(base, {"member/a": b"1", "member/b": b"2"})
    assert first == await store.read()
    with pytest.raises(Conflict, match="revision 2"):
        await store.commit(base, {"member/a": b"other"})
    assert await store.read() == first
    second = await store.commit(first, {"member/a": None})
    assert second == await store.read()
    assert "member/a" not in second.fields


async def test_commit_is_refused_without_the_cluster(store, redis, keys):
    """After a wipe or in front of another cluster nothing is written."""
    base = await store.init("c1", Defaults())
    await redis.flushall()
    with pytest.raises(Unavailable) as missing:
        await store.commit(base, {"member/a": b"1"})
    assert missing.value.reason == "REGISTRY_MISSING"
    assert await redis.dbsize() == 0
    await store.init("c2", Defaults())
    with pytest.raises(Unavailable) as foreign:
        await store.commit(base, {"member/a": b"1"})
    assert foreign.value.reason == "REGISTRY_FOREIGN"


async def test_digests_tell_histories_apart(store, redis):
    """Equal histories have equal digests, different changes at the same revision have not."""
    digests = []
    for value in (b"1", b"1", b"2"):
        await redis.flushall()
        snapshot = await store.commit(await store.init("c1", Defaults()), {"member/a": value})
        assert await store.digest_at(1, 2) == snapshot.digest
        digests.append(snapshot.digest)
    assert digests[0] == digests[1] != digests[2]
    assert await store.digest_at(1, 3) is None


async def test_read_after_tells_the_known_revisions_digest(store, redis, keys):
    """A read gives the digest of the known revision, '' if it never was, None once it is trimmed."""
    first = await store.init("c1", Defaults())
    second = await store.commit(first, {"member/a": b"1"})
    assert (await store.read_after(first)).known_digest == first.digest
    same = await store.read_after(second)
    assert (same.snapshot, same.known_digest) == (second, second.digest)
    ahead = Snapshot("c1", 1, 7, "x", {})
    assert (await store.read_after(ahead)).known_digest == ""
    await redis.xtrim(keys.events, maxlen=1, approximate=False)
    assert (await store.read_after(first)).known_digest is None


async def test_concurrent_updates_all_apply(store):
    """Updates that race are each decided on the registry they change."""
    await store.init("c1", Defaults())
    await asyncio.gather(*(store.update(lambda _, n=n: [member(f"m{n}")]) for n in range(8)))
    snapshot = await store.read()
    assert sorted(snapshot.view().members) == [f"m{n}" for n in range(8)]
    assert snapshot.revision == 9


async def test_update_without_difference_commits_nothing(store):
    """An update that changes nothing leaves the revision alone, and Delete removes a record."""
    await store.init("c1", Defaults())
    first = await store.update(lambda _: [member("a")])
    assert await store.update(lambda _: [member("a"), Delete("member/none")]) == first
    after = await store.update(lambda _: [Delete("member/a")])
    assert after.view().members == {}


async def test_update_needs_a_cluster(store):
    """Without a cluster an update is refused."""
    with pytest.raises(Unavailable, match="no cluster"):
        await store.update(lambda _: [])


async def test_restore_after_a_wipe_raises_the_incarnation(store, redis):
    """The holder of the recovery lease restores everything under the next incarnation."""
    best = await store.init("c1", Defaults())
    best = await store.commit(best, {"member/a": b"1"})
    await redis.flushall()
    token = await store.acquire_recovery("me", 10_000)
    restored = await store.restore(best, best.fields, token)
    assert restored == await store.read()
    assert (restored.version, restored.fields) == ((2, 3), best.fields)
    assert await store.digest_at(2, 3) == restored.digest
    assert (await store.commit(restored, {"member/b": b"2"})).version == (2, 4)


async def test_restore_needs_the_recovery_lease(store, redis):
    """Without the lease, or with one that was lost, nothing is restored."""
    best = await store.init("c1", Defaults())
    await redis.flushall()
    with pytest.raises(Unavailable) as lost:
        await store.restore(best, best.fields, "stale token")
    assert lost.value.reason == "RECOVERY_LEASE_LOST"
    assert await store.read() is None


async def test_restore_replaces_a_regressed_and_a_forked_registry(store, redis):
    """An older registry and one that went on differently from it are replaced, above both revisions."""
    old = await store.init("c1", Defaults())
    best = await store.commit(old, {"member/a": b"1"})
    await redis.flushall()
    regressed = await store.init("c1", Defaults())
    assert regressed.version < best.version
    token = await store.acquire_recovery("me", 10_000)
    assert (await store.restore(best, best.fields, token)).version == (2, 3)
    await redis.flushall()
    fork = await store.init("c1", Defaults())
    for value in (b"x", b"y", b"z"):
        fork = await store.commit(fork, {"member/b": value})
    token = await store.acquire_recovery("me", 10_000)
    restored = await store.restore(best, best.fields, token)
    assert (restored.version, restored.fields) == ((2, 5), best.fields)


async def test_restore_refuses_a_registry_that_continues_the_best(store):
    """A healthy registry is not replaced by an ancestor of it, nor by itself, nor twice."""
    base = await store.init("c1", Defaults())
    await store.commit(base, {"member/a": b"1"})
    now = await store.read()
    token = await store.acquire_recovery("me", 10_000)
    for best in (base, now, Snapshot("c1", 0, 99, "x", {})):
        with pytest.raises(FailedPrecondition) as refused:
            await store.restore(best, best.fields, token)
        assert refused.value.reason == "REGISTRY_NEWER"
    assert await store.read() == now


async def test_restore_refuses_a_foreign_cluster(store):
    """Another cluster's registry is never replaced."""
    await store.init("c2", Defaults())
    token = await store.acquire_recovery("me", 10_000)
    with pytest.raises(FailedPrecondition) as refused:
        await store.restore(Snapshot("c1", 9, 9, "x", {}), {}, token)
    assert refused.value.reason == "REGISTRY_FOREIGN"


async def test_recovery_lease_has_one_holder(store):
    """The recovery lease is held once, prolonged and ended only by its token."""
    token = await store.acquire_recovery("me", 10_000)
    assert await store.acquire_recovery("you", 10_000) is None
    assert await store.renew_recovery(token, 10_000)
    assert not await store.renew_recovery("me other", 10_000)
    await store.release_recovery("me other")
    assert await store.acquire_recovery("you", 10_000) is None
    await store.release_recovery(token)
    assert await store.acquire_recovery("you", 10_000) is not None


async def test_leases_end_by_the_servers_clock(store):
    """A lease is alive for its time to live as the server counts it, and no longer."""
    info = LeaseInfo(7, {"c/0": 12})
    await store.renew_lease("long", 60_000, info)
    await store.renew_lease("short", 1, LeaseInfo())
    async with asyncio.timeout(5):
        while "short" in await store.leases():
            pass
    assert await store.leases() == {"long": info}
    await store.release_lease("long")
    assert await store.leases() == {}


async def test_leases_ignore_the_members_clock(store, redis, keys):
    """The end of a lease is written in the server's time."""
    await store.renew_lease("a", 5_000, LeaseInfo())
    seconds, microseconds = await redis.time()
    ends_ms = int((await redis.hget(keys.leases, "a")).split(b" ")[0])
    assert 0 < ends_ms - (seconds * 1000 + microseconds // 1000) <= 5_000


async def test_wait_event_wakes_at_a_change(store):
    """Waiting ends with a change, and without one at its timeout."""
    base = await store.init("c1", Defaults())
    waiting = asyncio.create_task(store.wait_event(base.version, 2_000))
    await store.commit(base, {"member/a": b"1"})
    assert await waiting
    assert not await store.wait_event((1, 2), 10)


async def test_a_dead_server_is_unavailable(new_valkey, keys):
    """Calls to a server that is gone end as Unavailable."""
    from kintsugi.redis_client import connect

    server = new_valkey(durable=False)
    client = connect(server.url)
    store = RegistryStore(client, keys)
    base = await store.init("c1", Defaults())
    server.kill()
    for call in (store.read(), store.commit(base, {"a": b"b"}), store.leases(), store.wait_event((0, 0), 10)):
        with pytest.raises(Unavailable, match="failed"):
            await call
    await client.aclose()
