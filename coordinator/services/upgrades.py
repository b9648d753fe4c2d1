"""kintsugi.v1.Upgrades over coordinator.upgrades, artifact_uploads, next_documents and put_vectors."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from coordinator.artifact_uploads import ArtifactUploads
from coordinator.deadline import Clock, Deadline
from coordinator.next_documents import NextDocuments
from coordinator.put_vectors import PutVectors
from coordinator.upgrade_reports import to_message
from coordinator.upgrades import Upgrades
from kintsugi import limits
from kintsugi.v1 import upgrades_pb2, upgrades_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class UpgradesService(upgrades_pb2_grpc.UpgradesServicer):
    """`write_deadline_s` is for callers of PutVectors that set none."""

    def __init__(
        self,
        upgrades: Upgrades,
        uploads: ArtifactUploads,
        next_documents: NextDocuments,
        put_vectors: PutVectors,
        write_deadline_s: float,
        clock: Clock,
    ) -> None:
        self._upgrades = upgrades
        self._uploads = uploads
        self._next_documents = next_documents
        self._put_vectors = put_vectors
        self._write_deadline_s = write_deadline_s
        self._clock = clock

    async def PutArtifact(
        self, request_iterator: AsyncIterator[upgrades_pb2.PutArtifactRequest], context: Context
    ) -> upgrades_pb2.PutArtifactResponse:
        deadline = Deadline.of_call(context, self._clock, limits.DEFAULT_UPLOAD_DEADLINE_S)
        return upgrades_pb2.PutArtifactResponse(digest=await self._uploads.put(request_iterator, deadline))

    async def Plan(
        self, request: upgrades_pb2.PlanUpgradeRequest, context: Context
    ) -> upgrades_pb2.PlanUpgradeResponse:
        planned = await self._upgrades.plan(request, self._deadline(context))
        return upgrades_pb2.PlanUpgradeResponse(upgrade=to_message(planned))

    async def Start(
        self, request: upgrades_pb2.StartUpgradeRequest, context: Context
    ) -> upgrades_pb2.StartUpgradeResponse:
        started = await self._upgrades.start(request.collection, self._deadline(context))
        return upgrades_pb2.StartUpgradeResponse(upgrade=to_message(started))

    async def Get(self, request: upgrades_pb2.GetUpgradeRequest, context: Context) -> upgrades_pb2.GetUpgradeResponse:
        return await self._upgrades.get(request.collection, self._deadline(context))

    async def Pause(
        self, request: upgrades_pb2.PauseUpgradeRequest, context: Context
    ) -> upgrades_pb2.PauseUpgradeResponse:
        paused = await self._upgrades.pause(request.collection, self._deadline(context), paused=True)
        return upgrades_pb2.PauseUpgradeResponse(upgrade=to_message(paused))

    async def Resume(
        self, request: upgrades_pb2.ResumeUpgradeRequest, context: Context
    ) -> upgrades_pb2.ResumeUpgradeResponse:
        resumed = await self._upgrades.pause(request.collection, self._deadline(context), paused=False)
        return upgrades_pb2.ResumeUpgradeResponse(upgrade=to_message(resumed))

    async def CutOver(self, request: upgrades_pb2.CutOverRequest, context: Context) -> upgrades_pb2.CutOverResponse:
        cut_over = await self._upgrades.cut_over(request.collection, self._deadline(context))
        return upgrades_pb2.CutOverResponse(upgrade=to_message(cut_over))

    async def Rollback(
        self, request: upgrades_pb2.RollbackUpgradeRequest, context: Context
    ) -> upgrades_pb2.RollbackUpgradeResponse:
        returning = await self._upgrades.roll_back(request.collection, self._deadline(context))
        return upgrades_pb2.RollbackUpgradeResponse(upgrade=to_message(returning))

    async def Finish(
        self, request: upgrades_pb2.FinishUpgradeRequest, context: Context
    ) -> upgrades_pb2.FinishUpgradeResponse:
        finishing = await self._upgrades.finish(request.collection, self._deadline(context))
        return upgrades_pb2.FinishUpgradeResponse(upgrade=to_message(finishing))

    async def NextDocuments(
        self, request: upgrades_pb2.NextDocumentsRequest, context: Context
    ) -> upgrades_pb2.NextDocumentsResponse:
        return await self._next_documents.next(request, self._deadline(context))

    async def PutVectors(
        self, request: upgrades_pb2.PutVectorsRequest, context: Context
    ) -> upgrades_pb2.PutVectorsResponse:
        return await self._put_vectors.put(request, Deadline.of_call(context, self._clock, self._write_deadline_s))

    def _deadline(self, context: Context) -> Deadline:
        return Deadline.of_call(context, self._clock)
