"""Creates the registry of a new cluster in Redis. Nobody but `kintsugi init` and a fresh local cluster does that."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kintsugi.keys import Keys
from kintsugi.redis_client import check_server, connect, redis_errors
from kintsugi.registry.records import Defaults, Snapshot
from kintsugi.registry.store import RegistryStore


async def initialise(redis_url: str, namespace: str, cluster_id: str, defaults: Defaults) -> Snapshot:
    """Idempotent for the same cluster id; AlreadyExists when another cluster is there."""
    async with _store(redis_url, namespace) as store:
        return await store.init(cluster_id, defaults)


async def change_defaults(redis_url: str, namespace: str, cluster_id: str, defaults: Defaults) -> bool:
    """Changes what new collections get. False, and nothing changed, when the cluster is not there: it has to be
    recovered first, and comes back with its old defaults."""
    async with _store(redis_url, namespace) as store:
        present = await store.read()
        if present is None or present.cluster_id != cluster_id:
            return False
        await store.update(lambda view: [] if view.defaults == defaults else [defaults])
        return True


@asynccontextmanager
async def _store(redis_url: str, namespace: str) -> AsyncIterator[RegistryStore]:
    client = connect(redis_url)
    try:
        with redis_errors():
            await check_server(client)
        yield RegistryStore(client, Keys(namespace))
    finally:
        await client.aclose()
