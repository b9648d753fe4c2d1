"""kintsugi.v1.Cluster over coordinator.status and coordinator.loss."""

from typing import Any

import grpc.aio

from coordinator.collection_spec import check_name
from coordinator.loss import AcceptLoss
from coordinator.status import Status
from kintsugi.v1 import cluster_pb2, cluster_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterService(cluster_pb2_grpc.ClusterServicer):
    def __init__(self, status: Status, loss: AcceptLoss) -> None:
        self._status = status
        self._loss = loss

    async def GetStatus(self, request: cluster_pb2.GetStatusRequest, context: Context) -> cluster_pb2.GetStatusResponse:
        return await self._status.get(request.collection)

    async def AcceptLoss(
        self, request: cluster_pb2.AcceptLossRequest, context: Context
    ) -> cluster_pb2.AcceptLossResponse:
        return await self._loss.accept(check_name(request.collection, "collection"), request.shard)
