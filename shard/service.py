"""The shard contract over gRPC: parses, calls, builds. Decides nothing."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias

import grpc.aio

from kintsugi.internal.v1 import shard_pb2
from kintsugi.internal.v1.shard_pb2_grpc import ShardServicer
from kintsugi.lifecycle import Lifecycle
from kintsugi.machine import machine_status
from kintsugi.process_memory import resident_bytes
from kintsugi.projections.artifact import chunks
from kintsugi.registry.file import serialise
from kintsugi.registry.watch import RegistryWatcher
from kintsugi.rpc.server import remaining_s
from kintsugi.rpc.streaming import StreamedCalls, TimeLeft, UnaryMethod
from shard import reading
from shard.engine import Engine
from shard.environment import DATA_FILE
from shard.folders import SNAPSHOT_PREFIX
from shard.host import Host
from shard.peers import from_wire, to_wire
from shard.replica import Replica
from shard.verify import Verifier

SEARCH = "kintsugi.internal.v1.Shard/Search"
SNAPSHOT_CHUNK_BYTES = 2**20
TAIL_CHUNK_RECORDS = 256

Context: TypeAlias = grpc.aio.ServicerContext[object, object]
# Requests that name a replica and may carry a position that must be seen.
Read: TypeAlias = (
    shard_pb2.ShardSearchRequest
    | shard_pb2.GetDocumentsRequest
    | shard_pb2.CountDocumentsRequest
    | shard_pb2.ScrollDocumentsRequest
    | shard_pb2.MatchDocumentsRequest
)


class ShardService(ShardServicer):
    """`waiting` tells, by collection uid and shard, why the last attempt of this server to recover a log failed."""

    def __init__(
        self,
        member: str,
        host: Host,
        watcher: RegistryWatcher,
        lifecycle: Lifecycle,
        data: Path,
        waiting: Callable[[], Mapping[tuple[str, int], str]],
        draining: asyncio.Event,
    ) -> None:
        self._member = member
        self._host = host
        self._watcher = watcher
        self._lifecycle = lifecycle
        self._data = data
        self._waiting = waiting
        search = UnaryMethod(SEARCH, self.Search)
        self._streamed = StreamedCalls({shard_pb2.ShardSearchRequest: search}, _answered, draining)
        self._verifier = Verifier()

    # --- Reads --------------------------------------------------------------------------------------------------------

    async def Search(
        self, request: shard_pb2.ShardSearchRequest, context: Context | TimeLeft
    ) -> shard_pb2.ShardSearchResponse:
        _, engine = await self._answering(request, context)
        index = reading.index_of(engine, request.model, self._watcher.view)
        return await reading.search(engine, index, request, remaining_s(context))

    async def SearchStream(  # type: ignore[override]  # the stubs know handlers that yield only
        self, _messages: AsyncIterator[shard_pb2.StreamedSearch], context: Context
    ) -> None:
        await self._streamed.run(context, _search_of)

    async def GetDocuments(
        self, request: shard_pb2.GetDocumentsRequest, context: Context
    ) -> shard_pb2.GetDocumentsResponse:
        replica, engine = await self._answering(request, context)
        return await asyncio.to_thread(reading.get, engine, replica.collection, request)

    async def CountDocuments(
        self, request: shard_pb2.CountDocumentsRequest, context: Context
    ) -> shard_pb2.CountDocumentsResponse:
        _, engine = await self._answering(request, context)
        return await asyncio.to_thread(reading.count, engine, request)

    async def ScrollDocuments(
        self, request: shard_pb2.ScrollDocumentsRequest, context: Context
    ) -> shard_pb2.ScrollDocumentsResponse:
        replica, engine = await self._answering(request, context)
        return await asyncio.to_thread(reading.scroll, engine, replica.collection, request)

    async def MatchDocuments(
        self, request: shard_pb2.MatchDocumentsRequest, context: Context
    ) -> shard_pb2.MatchDocumentsResponse:
        _, engine = await self._answering(request, context, searchable=False)
        return await asyncio.to_thread(reading.match, engine, request)

    async def VerifyReplica(
        self, request: shard_pb2.VerifyReplicaRequest, context: Context
    ) -> shard_pb2.VerifyReplicaResponse:
        engine = self._host.replica(request.replica).answering()
        verified = await self._verifier.verify(engine, request.queries, request.k, remaining_s(context), request.model)
        return shard_pb2.VerifyReplicaResponse(
            position=to_wire(verified.content.position),
            content_digest=verified.content.digest,
            documents=verified.content.documents,
            index_version=verified.index_version,
            encoding=verified.encoding,
            queries=verified.queries,
            recall=verified.recall,
        )

    async def NextDocuments(
        self, request: shard_pb2.NextShardDocumentsRequest, context: Context
    ) -> shard_pb2.NextShardDocumentsResponse:
        replica = self._host.replica(request.replica)
        backfill = replica.answering().backfill
        return await asyncio.to_thread(backfill.next, replica.collection, self._watcher.view, request)

    async def _answering(
        self, request: Read, context: Context | TimeLeft, *, searchable: bool = True
    ) -> tuple[Replica, Engine]:
        replica = self._host.replica(request.replica)
        engine = replica.answering()
        if request.HasField("at_least"):
            await replica.hold(from_wire(request.at_least), remaining_s(context), searchable=searchable)
        return replica, engine

    # --- Writes and positions -----------------------------------------------------------------------------------------

    async def Await(self, request: shard_pb2.AwaitRequest, context: Context) -> shard_pb2.AwaitResponse:
        replica, position = self._host.replica(request.replica), from_wire(request.position)
        engine = await replica.hold(position, remaining_s(context), searchable=request.searchable)
        if not request.outcomes_from:
            return shard_pb2.AwaitResponse()
        outcomes = engine.storage.outcomes(request.outcomes_from, position.seq)
        return shard_pb2.AwaitResponse(
            outcomes=[shard_pb2.RecordOutcome.ValueType(outcome) for outcome, _ in outcomes],
            versions=[version for _, version in outcomes],
        )

    async def GetPosition(
        self, request: shard_pb2.GetPositionRequest, context: Context
    ) -> shard_pb2.GetPositionResponse:
        replica = self._host.replica(request.replica)
        if request.fence_epoch:
            await replica.fence(request.fence_epoch)
        engine, view = replica.engine, self._watcher.view
        return shard_pb2.GetPositionResponse(
            durable=to_wire(engine.position),
            searchable_seq=engine.searchable_seq,
            digest=(engine.storage.digest_at(request.digest_at) or b"") if request.digest_at else b"",
            registry_incarnation=view.snapshot.incarnation if view else 0,
            registry_revision=view.snapshot.revision if view else 0,
            tail_first_seq=engine.storage.tail_first_seq,
            fenced_epoch=engine.storage.fenced_epoch,
        )

    async def ReadTail(
        self, request: shard_pb2.ReadTailRequest, context: Context
    ) -> AsyncIterator[shard_pb2.TailEntry]:
        storage = self._host.replica(request.replica).engine.storage
        first = request.from_seq
        while first <= request.to_seq:
            last = min(first + TAIL_CHUNK_RECORDS - 1, request.to_seq)
            entries = await asyncio.to_thread(list, storage.tail(first, last))
            for seq, payload, digest in entries:
                yield shard_pb2.TailEntry(seq=seq, payload=payload.data, digest=digest, records=payload.records)
            if not entries:  # the replica does not reach that far
                return
            first = entries[-1].seq + 1

    async def Snapshot(
        self, request: shard_pb2.SnapshotRequest, context: Context
    ) -> AsyncIterator[shard_pb2.SnapshotChunk]:
        engine = self._host.replica(request.replica).answering()
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=SNAPSHOT_PREFIX, dir=engine.folder.path))
        try:
            await asyncio.to_thread(engine.storage.copy_to, folder)
            async with aclosing(_chunks(folder / DATA_FILE)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    # --- The server ---------------------------------------------------------------------------------------------------

    async def GetRegistry(
        self, request: shard_pb2.GetRegistryRequest, context: Context
    ) -> shard_pb2.GetRegistryResponse:
        view = self._watcher.view
        return shard_pb2.GetRegistryResponse(snapshot=serialise(view.snapshot) if view else b"")

    async def GetArtifact(
        self, request: shard_pb2.GetArtifactRequest, context: Context
    ) -> AsyncIterator[shard_pb2.ArtifactChunk]:
        for data in chunks(await asyncio.to_thread(self._host.artifact, request.digest)):
            yield shard_pb2.ArtifactChunk(data=data)

    async def GetServerStatus(
        self, request: shard_pb2.GetServerStatusRequest, context: Context
    ) -> shard_pb2.GetServerStatusResponse:
        waiting = self._waiting()
        return shard_pb2.GetServerStatusResponse(
            member=self._member,
            lifecycle=self._lifecycle.state.value,
            resident_bytes=resident_bytes(),
            replicas=[reading.status(replica, waiting) for replica in self._host.replicas],
            machine=await asyncio.to_thread(machine_status, self._data),
        )


def _search_of(message: shard_pb2.StreamedSearch) -> shard_pb2.ShardSearchRequest | None:
    return message.search if message.HasField("search") else None


def _answered(number: int, answer: shard_pb2.ShardSearchResponse | None, status: bytes) -> shard_pb2.StreamedAnswer:
    return shard_pb2.StreamedAnswer(number=number, answer=answer, status=status)


async def _chunks(path: Path) -> AsyncGenerator[shard_pb2.SnapshotChunk, None]:
    digest = hashlib.sha256()
    # Not in a thread: a file that was opened for somebody who was cancelled meanwhile would be nobody's.
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        while data := await asyncio.to_thread(file.read, SNAPSHOT_CHUNK_BYTES):
            digest.update(data)
            yield shard_pb2.SnapshotChunk(data=data, total_bytes=total)
    yield shard_pb2.SnapshotChunk(sha256=digest.digest(), total_bytes=total)
