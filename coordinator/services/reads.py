"""The reading half of kintsugi.v1.Documents over coordinator.reads. The servicer with the writing half delegates here."""

from typing import Any

import grpc.aio

from coordinator.deadline import Clock, Deadline
from coordinator.reads import Reads
from kintsugi.v1 import documents_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class DocumentReads:
    def __init__(self, reads: Reads, clock: Clock) -> None:
        self._reads = reads
        self._clock = clock

    async def get(self, request: documents_pb2.GetRequest, context: Context) -> documents_pb2.GetResponse:
        return await self._reads.get(request, Deadline.of_call(context, self._clock))

    async def count(self, request: documents_pb2.CountRequest, context: Context) -> documents_pb2.CountResponse:
        return await self._reads.count(request, Deadline.of_call(context, self._clock))

    async def scroll(self, request: documents_pb2.ScrollRequest, context: Context) -> documents_pb2.ScrollResponse:
        return await self._reads.scroll(request, Deadline.of_call(context, self._clock))
