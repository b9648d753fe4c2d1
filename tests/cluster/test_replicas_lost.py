"""Replicas that are lost for good, or cannot go on: the rest of the shard does, and nothing is given up without a word."""

import numpy as np
import pytest
from harness.oracle import Oracle
from harness.processes import EAGER, restart
from harness.verdict import position_of, settled, verify
from harness.waiting import until_empty
from harness.writers import Recorder

from kintsugi import AsyncClient, FailedPrecondition, Model
from kintsugi.keys import Keys
from kintsugi.log.read import LogReader
from kintsugi.redis_client import connect

pytestmark = pytest.mark.cluster

# A server that is killed leaves the in-sync set within seconds.
HASTY = {**EAGER, "KINTSUGI_OUT_OF_SYNC_AFTER_S": "1", "KINTSUGI_LEASE_S": "1"}


async def shard_of(client):
    return (await client.status()).collections[0].shards[0]


async def member_of(client, cluster, name):
    return next(m.id for m in (await client.status()).members if m.address == cluster.address_of(name))


async def leaves_the_in_sync_set(client, member):
    async def still_in_sync():
        return [r for r in (await shard_of(client)).replicas if r.member == member and r.state == "in-sync"]

    await until_empty(still_in_sync)


async def test_a_shard_whose_last_in_sync_replica_is_lost_goes_on_with_the_operators_word(new_cluster):
    """The other replica lacks what the log no longer holds. Accepting the loss names how far it is; writes go on from
    there; and the lost one is not believed when it comes back after all."""
    cluster = new_cluster(env=HASTY)
    async with AsyncClient(cluster.addresses, timeout_s=30) as client:
        await client.create_collection("docs", Model("m", 8), shards=1, replicas=2)
        uid = (await client.collection("docs")).uid
        recorder = Recorder(client, "docs", Oracle())
        await recorder.must_put(range(50))
        await settled(client)
        lost, left = [await member_of(client, cluster, name) for name in ("shard-0", "shard-1")]
        kept = (await position_of(cluster.address_of("shard-1"), uid, 0)).seq
        cluster.kill("shard-1")
        await leaves_the_in_sync_set(client, left)
        await outlive(cluster, uid, kept, Recorder(client, "docs", Oracle()))

        cluster.kill("shard-0")
        with pytest.raises(FailedPrecondition):  # nobody could recover it
            await client.accept_loss("docs", 0)
        cluster.start_process("shard-1")
        accepted = await accept_loss(client)
        assert accepted.given_up_members == (lost,)
        assert accepted.kept_seq == kept
        assert f"after sequence number {kept} are lost" in accepted.message

        await writes_again(recorder)
        shard = await shard_of(client)
        assert {r.member: r.state for r in shard.replicas} == {lost: "out-of-sync", left: "in-sync"}
        assert shard.epoch == 2
        await restart(cluster, "shard-0")
        await verify(client, "docs", recorder.oracle)
        assert list((cluster.data_of("shard-0") / "diverged").glob("*.jsonl")), "what only it held is set aside"


async def outlive(cluster, uid, seq, recorder):
    """Writes until the log no longer holds what follows `seq`."""
    redis = connect(cluster.redis_url)
    reader = LogReader(redis, Keys(), uid, 0)

    async def still_held():
        await recorder.must_put(range(1000, 1020))
        head = await reader.head()
        return head if head.first_seq <= seq + 1 else None

    try:
        await until_empty(still_held)
    finally:
        await redis.aclose()


async def accept_loss(client):
    """Asks until the lease of the lost server has ended and the other one answers; until then it is refused."""
    accepted = []

    async def refused():
        try:
            accepted.append(await client.accept_loss("docs", 0))
        except FailedPrecondition as error:
            if error.reason not in ("REPLICA_ALIVE", "NO_REPLICA_REACHABLE"):
                raise
            return str(error)
        return ""

    await until_empty(refused)
    return accepted[0]


async def writes_again(recorder):
    async def problem():
        result = await recorder.put(range(2000, 2020), timeout_s=5.0)
        return "" if result is not None and result.applied == 20 else "writes are still refused"

    await until_empty(problem)


async def test_an_open_shard_is_not_given_up_while_somebody_in_sync_answers(new_cluster):
    """Without a loss there is nothing to accept, whatever the operator types."""
    cluster = new_cluster(env=HASTY)
    async with AsyncClient(cluster.addresses) as client:
        await client.create_collection("docs", Model("m", 8), shards=1, replicas=2)
        cluster.kill("shard-1")
        with pytest.raises(FailedPrecondition) as caught:
            await client.accept_loss("docs", 0)
        assert caught.value.reason == "NOT_RECOVERING"
        assert (await shard_of(client)).log_state == "open"


async def test_a_replica_whose_disk_is_full_does_not_stop_the_writes(new_cluster):
    """It is out of sync on a living server: the log is trimmed without it, however much is written; with room again it
    comes back."""
    cluster = new_cluster(env={**EAGER, "KINTSUGI_MAX_LOG_BYTES": str(2**20)})
    async with AsyncClient(cluster.addresses, timeout_s=60) as client:
        await client.create_collection("docs", Model("m", 8), shards=1, replicas=2)
        cluster.stop_process("shard-1")
        cluster.start_process("shard-1", {"KINTSUGI_MAX_REPLICA_BYTES": str(2**20)})
        vectors = np.ones((4, 8), dtype=np.float32)
        for number in range(20):  # 8 MB
            result = await client.upsert("docs", range(4 * number, 4 * number + 4), vectors, texts=["x" * 100_000] * 4)
            assert result.applied == 4, result.messages
        # A copy may hold all of it for a moment, and then counts as in sync until the next write.
        assert '"phase": "failed"' in cluster.log_path("shard-1").read_text(), "the disk was not full"
        cluster.stop_process("shard-1")
        await restart(cluster, "shard-1")
        await settled(client)
        assert await client.count("docs") == 80
