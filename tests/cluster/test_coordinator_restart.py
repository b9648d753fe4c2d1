"""A coordinator that is started while Redis is down: it answers from the registry that it kept."""

import pytest
from harness.oracle import DIMENSION, Oracle, vector_of
from harness.processes import restart
from harness.searching import NO_RETRIES
from harness.verdict import settled, verify
from harness.waiting import until_empty
from harness.writers import Recorder

from kintsugi import AsyncClient, KintsugiError, Model, Unavailable

pytestmark = pytest.mark.cluster


async def test_searches_go_on_after_a_coordinator_restart_during_an_outage_of_redis(new_cluster):
    """Searches are answered whole, writes are refused, and when Redis is back they are taken again."""
    cluster = new_cluster()
    async with AsyncClient(cluster.addresses) as client:
        await client.create_collection("docs", Model("m", DIMENSION), shards=2, replicas=2)
        recorder = Recorder(client, "docs", Oracle())
        await recorder.must_put(range(60))
        await settled(client)

        cluster.kill("valkey")
        cluster.kill("coordinator-0")
        cluster.start_process("coordinator-0")

        async def not_found():
            try:
                found = await client.search("docs", vector_of(7, 1), k=60)
            except KintsugiError as error:
                return str(error)
            return "" if len(found.hits) == 60 and found.coverage.complete else found

        await until_empty(not_found)
        assert (await client.status()).registry == "unreachable"
        async with AsyncClient(cluster.addresses, retry=NO_RETRIES) as once:
            with pytest.raises(Unavailable) as refused:
                await once.upsert("docs", [1], [vector_of(1, 1)])
        assert refused.value.reason == "REGISTRY_UNREACHABLE"

        await restart(cluster, "valkey")
        await recorder.must_put(range(60, 80))
        await verify(client, "docs", recorder.oracle)
