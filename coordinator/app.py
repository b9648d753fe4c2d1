"""Puts a coordinator together and runs it: what depends on what, and the order of starting and stopping."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from coordinator.acks import Acknowledgements, Changes
from coordinator.artifact_uploads import ArtifactUploads
from coordinator.bulk import Bulk
from coordinator.collections import Collections
from coordinator.delete_by_filter import DeleteByFilter
from coordinator.floor import Floors
from coordinator.group_commit import GroupCommit, GroupLimits
from coordinator.housekeeping import Housekeeping, Patience
from coordinator.identity import member_id
from coordinator.leftovers import Leftovers
from coordinator.loss import AcceptLoss
from coordinator.next_documents import NextDocuments
from coordinator.observing import Observing
from coordinator.put_vectors import PutVectors
from coordinator.reading import ReadSettings, build_reading
from coordinator.replica_calls import ReplicaCalls
from coordinator.search_streams import SearchStreams
from coordinator.services.cluster import ClusterService
from coordinator.services.collections import CollectionsService
from coordinator.services.documents import DocumentsService
from coordinator.services.upgrades import UpgradesService
from coordinator.settings import CoordinatorSettings
from coordinator.shard_log import ShardLogs
from coordinator.shards import ShardCalls
from coordinator.status import Status
from coordinator.upgrade_driver import UpgradeDriver
from coordinator.upgrade_reports import UpgradeReports
from coordinator.upgrades import Upgrades
from coordinator.verify import Verify
from coordinator.views import Views
from coordinator.writes import Writes
from kintsugi.cancelling import end
from kintsugi.errors import Unavailable
from kintsugi.internal.v1.shard_pb2_grpc import ShardStub
from kintsugi.keys import Keys
from kintsugi.lifecycle import Lifecycle, LifecycleEvent
from kintsugi.log.append import LogWriter
from kintsugi.log.listing import LogListing
from kintsugi.log.positions import LogPositions
from kintsugi.log.read import Head, LogReader
from kintsugi.machine import machine_status
from kintsugi.position import Position
from kintsugi.redis_client import RedisClient, check_server, connect
from kintsugi.registry.artifacts import ArtifactCache
from kintsugi.registry.enrolment import Enrolment
from kintsugi.registry.file import NAME as REGISTRY_FILE
from kintsugi.registry.file import RegistryFile
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Member, Role
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryWatcher
from kintsugi.rpc.channels import ChannelPool
from kintsugi.rpc.server import RpcServer
from kintsugi.telemetry import LogEvent, logger
from kintsugi.telemetry.process import Process, observed
from kintsugi.v1.cluster_pb2_grpc import add_ClusterServicer_to_server
from kintsugi.v1.collections_pb2_grpc import add_CollectionsServicer_to_server
from kintsugi.v1.documents_pb2_grpc import add_DocumentsServicer_to_server
from kintsugi.v1.search_pb2_grpc import add_SearchServicer_to_server
from kintsugi.v1.upgrades_pb2_grpc import add_UpgradesServicer_to_server
from kintsugi.version import VERSION

REGISTRY_PATIENCE_S = 10.0
_CHANNELS_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a coordinator that live as long as it does."""

    settings: CoordinatorSettings
    member: str
    lifecycle: Lifecycle
    channels: ChannelPool
    redis: RedisClient
    store: RegistryStore
    watcher: RegistryWatcher
    writes: Writes
    observing: Observing
    housekeeping: Housekeeping
    leftovers: Leftovers
    driver: UpgradeDriver
    streams: SearchStreams
    server: RpcServer

    def lease_info(self) -> LeaseInfo:
        view = self.watcher.view
        return LeaseInfo(view.snapshot.revision if view else 0)

    def enrolment(self) -> Enrolment:
        address = self.settings.advertise or self.server.address
        member = Member(self.member, Role.COORDINATOR, address, VERSION)
        return Enrolment(self.store, self.watcher, member, self.settings.lease_s, self.lease_info)


def assemble(settings: CoordinatorSettings, member: str) -> Parts:
    """Wires the parts; reads the data folder, but opens no connection. Needs a running event loop."""
    lifecycle, channels, file = Lifecycle(), ChannelPool(), RegistryFile(settings.data / REGISTRY_FILE)
    redis, keys = connect(settings.redis), Keys(settings.namespace)
    store = RegistryStore(redis, keys)
    watcher = RegistryWatcher(store, file.load(), file.persist, check_server=partial(check_server, redis))
    calls = ReplicaCalls(lambda address: ShardStub(channels.get(address)), lambda: watcher.view)
    log = LogWriter(redis, keys, max_log_bytes=settings.max_log_bytes)
    views = Views(watcher, time.monotonic)
    writes = _assemble_writes(settings, watcher, views, calls, log)
    collections = Collections(watcher, views, log, calls, _now_us)

    async def head(uid: str, shard: int) -> Head | None:
        return await LogReader(redis, keys, uid, shard).head()

    async def verify(uid: str, shard: int, incarnation: int, epoch: int, position: Position) -> Head:
        return await LogReader(redis, keys, uid, shard).verify(incarnation, epoch, position)

    status = Status(watcher, calls, head, member, lambda: lifecycle.state, lambda: machine_status(settings.data))
    patience = Patience(settings.out_of_sync_after_s)
    positions = LogPositions(redis, keys)
    housekeeping = Housekeeping(watcher, positions, head, patience, max_log_bytes=settings.max_log_bytes)
    leftovers = Leftovers(watcher, LogListing(redis, keys), head, log.drop)
    server = RpcServer(settings.listen)
    reading = build_reading(
        watcher,
        lambda address: ShardStub(channels.get(address)),
        server.draining,
        ReadSettings(max_running=settings.max_running_queries, max_waiting=settings.max_waiting_queries),
    )
    bulk = Bulk(writes, chunks_in_flight=settings.bulk_chunks)
    by_filter = DeleteByFilter(views, reading.reads, writes, head)
    documents = DocumentsService(
        writes, bulk, by_filter, reading.document_reads, settings.write_deadline_s, time.monotonic
    )
    server.add(
        add_CollectionsServicer_to_server, CollectionsService(collections, settings.create_deadline_s, time.monotonic)
    )
    server.add(add_DocumentsServicer_to_server, documents)
    server.add(add_SearchServicer_to_server, reading.search_service)
    cluster = ClusterService(status, AcceptLoss(watcher, calls, verify), Verify(views, calls), time.monotonic)
    server.add(add_ClusterServicer_to_server, cluster)
    artifacts = ArtifactCache(redis, keys)
    reports = UpgradeReports(watcher, views, calls, artifacts)
    driver = UpgradeDriver(watcher, reports, log, artifacts, _now_us)
    upgrades = UpgradesService(
        Upgrades(watcher, views, reports, artifacts, _now_us),
        ArtifactUploads(artifacts),
        NextDocuments(views, ShardCalls(lambda address: ShardStub(channels.get(address)))),
        PutVectors(writes),
        settings.write_deadline_s,
        time.monotonic,
    )
    server.add(add_UpgradesServicer_to_server, upgrades)
    observing = Observing(reading.admission, writes)
    parts = (settings, member, lifecycle, channels, redis, store, watcher)
    return Parts(*parts, writes, observing, housekeeping, leftovers, driver, reading.streams, server)


def _assemble_writes(
    settings: CoordinatorSettings, watcher: RegistryWatcher, views: Views, calls: ReplicaCalls, log: LogWriter
) -> Writes:
    logs = ShardLogs(watcher, Floors(views.current, watcher.refresh, calls.position, log.server), log.append)
    limits = GroupLimits(settings.group_documents, settings.group_bytes, settings.pending_bytes)
    acknowledgements = Acknowledgements(lambda: watcher.view, Changes(watcher.subscribe), calls.await_write)
    return Writes(views, logs, GroupCommit(logs.append, limits), acknowledgements, _now_us)


def _now_us() -> int:
    return time.time_ns() // 1000


async def serve(settings: CoordinatorSettings, stop: asyncio.Event) -> None:
    """Runs a coordinator until `stop` is set, then drains it."""
    parts = assemble(settings, await asyncio.to_thread(member_id, settings.data))
    with suppress(Unavailable):  # reported by the watcher, which goes on trying
        await check_server(parts.redis)
    process = Process("coordinator", parts.member, parts.lifecycle, parts.watcher)
    telling = observed(settings, process, parts.observing.samples, trace_ratio=settings.trace_ratio)
    async with telling, parts.server:
        enrolment = parts.enrolment()
        parts.lifecycle.advance(LifecycleEvent.OPENED)
        async with asyncio.TaskGroup() as tasks:
            work = (
                enrolment.run(),
                parts.housekeeping.run(),
                parts.leftovers.run(),
                parts.driver.run(),
                parts.watcher.run(asyncio.Event()),
                _close_unused_channels(parts),
                _serve_when_known(parts),
            )
            running = [tasks.create_task(one) for one in work]
            await stop.wait()
            await end((running[0], running[-1]))
            await _drain(parts, enrolment)
            await end(running)
    parts.lifecycle.advance(LifecycleEvent.DRAINED)
    await parts.streams.close()
    await parts.channels.close()
    await parts.redis.aclose()


async def _serve_when_known(parts: Parts) -> None:
    """Health says SERVING once a registry is known, from Redis or from the data folder: without one there is nothing to
    search or to write."""
    while not await parts.watcher.wait_for(lambda view, _health: view is not None, REGISTRY_PATIENCE_S):
        logger("coordinator").warning(LogEvent.REGISTRY_AWAITED, message=parts.watcher.message)
    parts.lifecycle.advance(LifecycleEvent.CAUGHT_UP)
    await parts.server.set_serving(serving=True)


async def _close_unused_channels(parts: Parts) -> None:
    """Members move; their old addresses must not be redialled for ever."""
    while True:
        await asyncio.sleep(_CHANNELS_EVERY_S)
        if parts.watcher.view is not None:
            await parts.channels.keep_only({member.address for member in parts.watcher.view.members.values()})


async def _drain(parts: Parts, enrolment: Enrolment) -> None:
    parts.lifecycle.advance(LifecycleEvent.STOP)
    await parts.server.set_serving(serving=False)
    await enrolment.release()
    await parts.server.stop()
    await parts.writes.close()
