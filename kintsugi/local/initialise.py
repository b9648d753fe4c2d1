"""Creates the registry of a new cluster in Redis. Nobody but `kintsugi init` and a fresh local cluster does that."""

from kintsugi.keys import Keys
from kintsugi.redis_client import check_server, connect, redis_errors
from kintsugi.registry.records import Defaults, Snapshot
from kintsugi.registry.store import RegistryStore


async def initialise(redis_url: str, namespace: str, cluster_id: str, defaults: Defaults) -> Snapshot:
    """Idempotent for the same cluster id; AlreadyExists when another cluster is there."""
    client = connect(redis_url)
    try:
        with redis_errors():
            await check_server(client)
            return await RegistryStore(client, Keys(namespace)).init(cluster_id, defaults)
    finally:
        await client.aclose()
