"""The shard server process: wires the parts and runs them until a signal, in the states of kintsugi/lifecycle.py."""

import asyncio
import functools
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from kintsugi.cancelling import end
from kintsugi.errors import Unavailable
from kintsugi.internal.v1.shard_pb2_grpc import ShardStub, add_ShardServicer_to_server
from kintsugi.keys import Keys
from kintsugi.lifecycle import Lifecycle, LifecycleEvent
from kintsugi.log.positions import LogPositions
from kintsugi.log.restore import LogRestorer
from kintsugi.redis_client import RedisClient, check_server, connect
from kintsugi.registry.artifacts import ArtifactCache
from kintsugi.registry.enrolment import Enrolment
from kintsugi.registry.file import RegistryFile
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Member, Role
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryWatcher
from kintsugi.rpc.channels import ChannelPool
from kintsugi.rpc.server import RpcServer, run_process
from kintsugi.settings import load_or_exit
from kintsugi.telemetry import LogEvent, configure_logging, logger
from kintsugi.telemetry.process import Process, observed
from kintsugi.version import VERSION
from shard.artifacts import Artifacts
from shard.build_pace import BuildPace
from shard.build_turns import BuildTurns
from shard.folders import Folders
from shard.host import Host
from shard.identity import claim, member_id
from shard.index_reports import IndexReports
from shard.observing import Observing
from shard.peers import Peers
from shard.recall_watch import RecallWatch
from shard.recovery import Guardian
from shard.service import ShardService
from shard.settings import ShardSettings
from shard.storage import StorageEvent, ignore
from shard.surroundings import Surroundings
from shard.upgrade_files import UpgradeFiles

# The interpreter hands the GIL over more often than by default, so that a busy event loop does not hold up the search
# thread, which takes the GIL back after every vector: 0.9 instead of 5.7 ms in the median.
SWITCH_INTERVAL_S = 0.0005
REGISTRY_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a shard server, wired."""

    settings: ShardSettings
    member: str
    lifecycle: Lifecycle
    channels: ChannelPool
    redis: RedisClient
    store: RegistryStore
    watcher: RegistryWatcher
    host: Host
    guardian: Guardian
    reports: IndexReports
    turns: BuildTurns
    observing: Observing
    server: RpcServer

    def lease_info(self) -> LeaseInfo:
        view = self.watcher.view
        return LeaseInfo(view.snapshot.revision if view else 0, self.host.documents())

    def enrolment(self) -> Enrolment:
        address = self.settings.advertise or self.server.address
        member = Member(self.member, Role.SHARD, address, VERSION)
        return Enrolment(self.store, self.watcher, member, self.settings.lease_s, self.lease_info)


def assemble(settings: ShardSettings, observe: Callable[[StorageEvent], None] = ignore) -> Parts:
    """Wires the parts, inside the running loop that gRPC wants; opens the data folder, but no connection."""
    folders = Folders(settings.data)
    folders.root.mkdir(parents=True, exist_ok=True)
    member, file = member_id(folders.root), RegistryFile(folders.registry)
    lifecycle, channels = Lifecycle(), ChannelPool()
    redis, keys = connect(settings.redis), Keys(settings.namespace)
    store = RegistryStore(redis, keys)
    watcher = RegistryWatcher(store, file.load(), file.persist, check_server=functools.partial(check_server, redis))
    peers = Peers(lambda address: ShardStub(channels.get(address)), lambda: watcher.view)
    reports = IndexReports(watcher, member)
    turns, pace = BuildTurns(watcher, reports, member), BuildPace(settings.build_cpu)
    artifacts = Artifacts(
        folders.artifacts, ArtifactCache(redis, keys), functools.partial(peers.others, member), peers.artifact
    )
    around = Surroundings(
        member, settings, redis, keys, store, watcher, LogPositions(redis, keys), peers, reports, turns, pace,
        UpgradeFiles(artifacts), observe,
    )  # fmt: skip
    host = Host(folders, around)
    guardian = Guardian(around, LogRestorer(redis, keys))
    server = RpcServer(settings.listen)
    server.add(
        add_ShardServicer_to_server,
        ShardService(member, host, watcher, lifecycle, settings.data, lambda: guardian.waiting, server.draining),
    )
    observing = Observing(host, guardian, around.positions)
    return Parts(
        settings, member, lifecycle, channels, redis, store, watcher, host, guardian, reports, turns, observing, server
    )


async def serve(settings: ShardSettings, stop: asyncio.Event) -> None:
    settings.data.mkdir(parents=True, exist_ok=True)
    with claim(settings.data):
        await run(assemble(settings), stop)


async def run(parts: Parts, stop: asyncio.Event) -> None:
    """The life of a wired server, until `stop` is set."""
    with suppress(Unavailable):  # searches go on without Redis; it is judged by the watcher once it is back
        await check_server(parts.redis)
    process = Process("shard", parts.member, parts.lifecycle, parts.watcher)
    async with observed(parts.settings, process, parts.observing.samples), parts.server:
        enrolment = parts.enrolment()
        parts.lifecycle.advance(LifecycleEvent.OPENED)
        async with asyncio.TaskGroup() as tasks:
            recall = RecallWatch(lambda: parts.host.replicas, parts.settings.recall_samples_per_minute)
            forward = [tasks.create_task(work) for work in (enrolment.run(), recall.run(), _serve_when_settled(parts))]
            beneath = [
                tasks.create_task(work)
                for work in (
                    parts.watcher.run(stop),
                    parts.guardian.run(),
                    parts.host.run(),
                    parts.reports.run(),
                    parts.turns.run(),
                )
            ]
            await stop.wait()
            await end(forward)
            await _drain(parts, enrolment)
            await end(beneath)
    parts.lifecycle.advance(LifecycleEvent.DRAINED)
    await parts.channels.close()
    await parts.redis.aclose()


async def _serve_when_settled(parts: Parts) -> None:
    """Health says SERVING once every replica placed here has caught up, or has said why it cannot."""
    while not await parts.watcher.wait_for(lambda view, _health: view is not None, REGISTRY_PATIENCE_S):
        logger("shard").warning(LogEvent.REGISTRY_AWAITED, message=parts.watcher.message)
    await parts.host.settled()
    parts.lifecycle.advance(LifecycleEvent.CAUGHT_UP)
    await parts.server.set_serving(serving=True)


async def _drain(parts: Parts, enrolment: Enrolment) -> None:
    parts.lifecycle.advance(LifecycleEvent.STOP)
    await parts.server.set_serving(serving=False)
    await enrolment.release()
    await parts.server.stop()


def main() -> int:
    settings = load_or_exit(ShardSettings, program="python -m shard")
    configure_logging(settings.log_format, settings.log_level, process="shard")
    logger("shard").info(LogEvent.PROCESS_STARTED, version=VERSION, data=str(settings.data))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return run_process(functools.partial(serve, settings))


if __name__ == "__main__":
    sys.exit(main())
