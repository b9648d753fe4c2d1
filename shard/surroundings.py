"""What every replica of a shard server shares: who it is, the registry, the logs, its peers, its settings."""

from collections.abc import Callable
from dataclasses import dataclass

from kintsugi.keys import Keys
from kintsugi.log.positions import LogPositions
from kintsugi.log.read import LogReader
from kintsugi.redis_client import RedisClient
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryWatcher
from shard.build_pace import BuildPace
from shard.build_turns import BuildTurns
from shard.index_reports import IndexReports
from shard.peers import Peers
from shard.settings import ShardSettings
from shard.storage import StorageEvent, ignore
from shard.upgrade_files import UpgradeFiles


@dataclass(frozen=True, slots=True)
class Surroundings:
    member: str
    settings: ShardSettings
    redis: RedisClient
    keys: Keys
    store: RegistryStore
    watcher: RegistryWatcher
    positions: LogPositions
    peers: Peers
    index_reports: IndexReports
    build_turns: BuildTurns
    build_pace: BuildPace
    upgrades: UpgradeFiles
    # Called after each commit of a replica's database, before anybody hears of it.
    observe: Callable[[StorageEvent], None] = ignore

    def reader(self, collection_uid: str, shard: int) -> LogReader:
        return LogReader(self.redis, self.keys, collection_uid, shard)
