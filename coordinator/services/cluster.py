"""kintsugi.v1.Cluster over coordinator.status, coordinator.loss and coordinator.verify."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from coordinator.collection_spec import check_name
from coordinator.deadline import Clock, Deadline
from coordinator.loss import AcceptLoss
from coordinator.status import Status
from coordinator.verify import Verify
from kintsugi import limits
from kintsugi.v1 import cluster_pb2, cluster_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterService(cluster_pb2_grpc.ClusterServicer):
    def __init__(self, status: Status, loss: AcceptLoss, verify: Verify, clock: Clock) -> None:
        self._status = status
        self._loss = loss
        self._verify = verify
        self._clock = clock

    async def GetStatus(self, request: cluster_pb2.GetStatusRequest, context: Context) -> cluster_pb2.GetStatusResponse:
        return await self._status.get(request.collection)

    async def AcceptLoss(
        self, request: cluster_pb2.AcceptLossRequest, context: Context
    ) -> cluster_pb2.AcceptLossResponse:
        return await self._loss.accept(check_name(request.collection, "collection"), request.shard)

    async def Verify(
        self, request: cluster_pb2.VerifyRequest, context: Context
    ) -> AsyncIterator[cluster_pb2.VerifyResponse]:
        deadline = Deadline.of_call(context, self._clock, limits.DEFAULT_VERIFY_DEADLINE_S)
        async for response in self._verify.run(request, deadline):
            yield response
