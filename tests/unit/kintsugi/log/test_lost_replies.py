"""Appending through a network that loses replies, and to servers that refuse."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kintsugi.cancelling import end
from kintsugi.errors import DeadlineExceeded, Unavailable
from kintsugi.local.valkey import free_port
from kintsugi.log.append import AppendRequest, LogTarget, LogWriter
from kintsugi.log.payload import Payload
from kintsugi.position import START
from kintsugi.redis_client import connect

UID = "c1"
SHARD = 3


class Proxy:
    """Forwards to a server. While `losing` is set it forwards requests, and then loses their replies: by closing the
    connection, or in silence."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.losing: str = ""
        self.lost = 0
        self.losses_left = -1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        up = asyncio.create_task(self._requests(reader, upstream_writer))
        try:
            await self._replies(upstream_reader, writer)
        finally:
            await end((up,))
            for closing in (upstream_writer, writer):
                closing.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.losing or self.losses_left == 0:
                writer.write(data)
                await writer.drain()
                continue
            self.lost += 1
            self.losses_left -= 1
            if self.losing == "closed":
                return


@asynccontextmanager
async def proxied(port: int, keys, attempt_timeout_s: float = 0.2) -> AsyncIterator[tuple[Proxy, LogWriter]]:
    """A writer that reaches the server through a proxy."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    client = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await client.ping()
    yield proxy, LogWriter(client, keys, max_log_bytes=10**7, attempt_timeout_s=attempt_timeout_s)
    await client.aclose()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("how", ["closed", "silent"])
async def test_a_call_whose_reply_was_lost_writes_once(log, valkey, keys, how):
    """A lost reply is followed by the same call, which finds what the first one wrote."""
    await log.append(b"before")
    async with proxied(valkey.port, keys) as (proxy, writer):
        proxy.losing, proxy.losses_left = how, 2
        requests = [AppendRequest("r1", [Payload(b"a"), Payload(b"b")]), AppendRequest("r2", [Payload(b"c")])]
        results = await writer.append(log.target(), requests, 10.0)
    assert proxy.lost == 2
    assert [(result.first_seq, result.last.seq, result.repeated) for result in results] == [(2, 3, True), (4, 4, True)]
    assert [entry.payload for entry in await log.entries()] == [b"before", b"a", b"b", b"c"]


@pytest.mark.parametrize(("how", "error"), [("closed", Unavailable), ("silent", DeadlineExceeded)])
async def test_an_outcome_that_stays_unknown_is_reported_as_unknown(log, valkey, keys, how, error):
    """When no reply comes through in time the writer does not claim that nothing was written."""
    await log.append(b"before")
    async with proxied(valkey.port, keys) as (proxy, writer):
        proxy.losing = how
        with pytest.raises(error) as raised:
            await writer.append(log.target(), [AppendRequest("r", [Payload(b"a")])], 0.5)
    assert raised.value.reason == "OUTCOME_UNKNOWN"
    assert proxy.lost >= 2
    assert [entry.payload for entry in await log.entries()] == [b"before", b"a"]


async def test_a_refusal_after_a_lost_reply_is_unknown(log, valkey, keys, redis):
    """A log that moved between two attempts says nothing of what the first attempt wrote."""
    async with proxied(valkey.port, keys) as (proxy, writer):
        proxy.losing, proxy.losses_left = "silent", 1
        appending = asyncio.create_task(writer.append(log.target(), [AppendRequest("r", [Payload(b"a")])], 10.0))
        async with asyncio.timeout(10):
            while not await redis.exists(log.stream):
                pass
        await redis.flushall()
        with pytest.raises(Unavailable) as raised:
            await appending
    assert raised.value.reason == "OUTCOME_UNKNOWN"


async def test_a_refused_connection_wrote_nothing(log, keys):
    """Where nobody listens nothing was sent, and the caller learns so at once."""
    client = connect(f"redis://127.0.0.1:{free_port()}")
    writer = LogWriter(client, keys, max_log_bytes=10**7)
    with pytest.raises(Unavailable) as raised:
        await writer.append(log.target(), [AppendRequest("r", [Payload(b"a")])], 10.0)
    assert raised.value.reason == "NOT_WRITTEN"
    await client.aclose()


async def test_a_server_without_memory_wrote_nothing(log, redis):
    """Redis' own refusal comes before the first write of the script; an append that can trim gets through."""
    await log.append(b"a", b"b")
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(Unavailable) as raised:
            await log.append(b"c")
    finally:
        await redis.config_set("maxmemory", 0)
    assert raised.value.reason == "NOT_WRITTEN"
    assert len(await log.entries()) == 2
    await log.report("a", 2)
    await redis.config_set("maxmemory", 1)
    try:
        assert (await log.append(b"d")).first_seq == 3
    finally:
        await redis.config_set("maxmemory", 0)


async def test_a_paused_server_is_asked_again(log, redis, keys):
    """A server that stalls for a while gets the same call again and writes it once."""
    writer = LogWriter(redis, keys, max_log_bytes=10**7, attempt_timeout_s=0.1)
    await redis.execute_command("CLIENT", "PAUSE", 350, "WRITE")
    (result,) = await writer.append(log.target(), [AppendRequest("r", [Payload(b"a")])], 10.0)
    assert result.last.seq == 1
    assert len(await log.entries()) == 1


async def test_a_killed_server_makes_the_outcome_unknown(new_valkey, keys):
    """A connection that breaks in the middle of a call may have carried it."""
    server = new_valkey()
    client = connect(server.url)
    writer = LogWriter(client, keys, max_log_bytes=10**7, attempt_timeout_s=5.0)
    await writer.create(UID, SHARD, 1, 1)
    await client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    target = LogTarget(UID, SHARD, 1, 1, START)
    appending = asyncio.create_task(writer.append(target, [AppendRequest("r", [Payload(b"a")])], 1.0))
    observer = connect(server.url)
    async with asyncio.timeout(10):
        while (await observer.info("clients"))["blocked_clients"] == 0:
            pass
    server.kill()
    with pytest.raises(Unavailable) as raised:
        await appending
    assert raised.value.reason == "OUTCOME_UNKNOWN"
    await observer.aclose()
    await client.aclose()
