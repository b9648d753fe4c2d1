"""Connecting to Redis, checking it, running scripts on it."""

import asyncio
from tempfile import TemporaryDirectory

import pytest
import uvloop
from redis.asyncio import RedisCluster
from redis.cluster import key_slot
from redis.exceptions import ReadOnlyError

from kintsugi.errors import FailedPrecondition, InvalidArgument, Unavailable
from kintsugi.keys import Keys
from kintsugi.redis_client import check_info, check_server, connect, redis_errors
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Defaults, Member, Role
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryHealth, RegistryWatcher


async def test_a_proper_server_is_accepted(redis):
    """The embedded server passes its own check."""
    await check_server(redis)


async def test_a_server_is_reached_by_its_socket_file(new_valkey):
    """With a path that names no socket there is nobody, and nothing was written."""
    with TemporaryDirectory() as folder:  # a path of pytest's may be too long for a socket
        new_valkey(durable=False, options=("--unixsocket", f"{folder}/socket"))
        client = connect(f"unix://{folder}/socket")
        await check_server(client)
        assert await client.set("key", b"value")
        await client.aclose()
        client = connect(f"unix://{folder}/none")
        with pytest.raises(Unavailable), redis_errors("reading"):
            await client.get("key")
        await client.aclose()


async def test_an_evicting_server_is_refused(new_valkey):
    """A server that may evict is refused with what to set."""
    client = connect(new_valkey(durable=False, options=("--maxmemory-policy", "allkeys-lru")).url)
    with pytest.raises(FailedPrecondition, match="allkeys-lru, must be noeviction"):
        await check_server(client)
    await client.aclose()


@pytest.mark.parametrize(
    ("version", "accepted"), [("6.0.16", False), ("5.0", False), ("", False), ("6.2.0", True), ("10.1", True)]
)
def test_old_versions_are_refused(version, accepted):
    """Servers before 6.2 are refused by their version."""
    info = {"redis_version": version, "maxmemory_policy": "noeviction"}
    if accepted:
        check_info(info)
    else:
        with pytest.raises(FailedPrecondition, match=r"must be 6\.2 or newer"):
            check_info(info)


async def test_an_unreachable_server_is_unavailable():
    """A refused connection is Unavailable, without retries."""
    client = connect("redis://127.0.0.1:1")
    with pytest.raises(Unavailable, match="127.0.0.1:1"):
        await check_server(client)
    await client.aclose()


@pytest.mark.parametrize(
    "url", ["http://host", "host:6379", "redis://host:port", "sentinel://host:26379", "cluster://host:x"]
)
def test_odd_urls_are_refused(url):
    """A URL of another kind names the field and what is possible."""
    with pytest.raises(InvalidArgument, match="redis is"):
        connect(url)


def test_a_refused_url_does_not_show_its_password():
    """An error message does not carry the password of the URL it refuses."""
    with pytest.raises(InvalidArgument) as refused:
        connect("http://user:secret@host")
    assert "secret" not in refused.value.message


async def test_every_kind_of_url_makes_a_client():
    """Each scheme makes its client, with credentials taken from the URL and without contact to the server."""
    urls = [
        "redis://h:1/2",
        "rediss://h",
        "unix:///run/r.sock",
        "sentinel://u:p%40@h:1,h2/main?db=3",
        "cluster://h:1,h2",
    ]
    clients = [connect(url) for url in urls]
    assert isinstance(clients[4], RedisCluster)
    options = clients[3].connection_pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == ("u", "p@", 3)
    for client in clients:
        await client.aclose()


def test_answers_that_forbid_writing_are_unavailable():
    """Error replies of a server that cannot write now are Unavailable and keep their text."""
    with pytest.raises(Unavailable, match="changing failed: You can't write") as error, redis_errors("changing"):
        raise ReadOnlyError("You can't write against a read only replica")
    assert error.value.reason == "REDIS_UNAVAILABLE"


def test_keys_of_one_script_share_a_slot():
    """The registry's keys sit in one slot, and so do those of one shard, whatever a request id contains."""
    keys = Keys("ns")
    registry = {keys.cluster, keys.revision, keys.registry, keys.events, keys.leases, keys.recovery}
    assert len(registry) == 6
    assert len({key_slot(key.encode()) for key in registry}) == 1
    shard = keys.shard("uid", 3)
    log = {shard.head, shard.log, shard.positions, shard.request("{odd}"), shard.request("")}
    assert len({key_slot(key.encode()) for key in log}) == 1
    assert shard.head != keys.shard("uid", 4).head != Keys("other").shard("uid", 4).head
    with pytest.raises(InvalidArgument, match="namespace"):
        Keys("a{b}")


async def test_the_registry_works_on_a_redis_cluster(new_valkey, keys):
    """Every call of the registry runs against a server in cluster mode."""
    server = new_valkey(durable=False, options=("--cluster-enabled", "yes"))
    setup = connect(server.url)
    await setup.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    while (await setup.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":
        pass
    await setup.aclose()
    client = connect(f"cluster://127.0.0.1:{server.port}")
    await check_server(client)
    store = RegistryStore(client, keys)
    await store.init("c1", Defaults())
    await store.renew_lease("a", 60_000, LeaseInfo(1))
    known = await store.update(lambda _: [Member("a", Role.SHARD, "127.0.0.1:1", "1")])
    watcher = RegistryWatcher(store)
    await watcher.refresh()
    assert (watcher.health, watcher.view.snapshot) == (RegistryHealth.OK, known)
    assert watcher.leases == {"a": LeaseInfo(1)}
    assert await store.digest_at(1, 2) == known.digest
    assert await store.wait_event((1, 1), 100)
    assert not await store.wait_event((1, 2), 10)
    token = await store.acquire_recovery("me", 10_000)
    await client.delete(keys.cluster)
    assert (await store.restore(known, known.fields, token)).version == (2, 3)
    assert await store.renew_recovery(token, 10_000)
    await store.release_recovery(token)
    await store.release_lease("a")
    await client.aclose()


def test_a_write_to_a_closed_transport_is_a_lost_connection(valkey):
    """uvloop's RuntimeError becomes Unavailable; any other one passes."""
    host, _, port = valkey.url.removeprefix("redis://").partition(":")

    async def write_after_the_end() -> None:
        _reader, writer = await asyncio.open_connection(host, int(port.partition("/")[0]))
        writer.close()
        await writer.wait_closed()
        with redis_errors("writing"):
            writer.writelines([b"PING"])

    lost = pytest.raises(Unavailable, match="writing failed: .*the handler is closed")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, lost:
        runner.run(write_after_the_end())
    with pytest.raises(RuntimeError, match="ours"), redis_errors():
        raise RuntimeError("ours")
