"""kintsugi.v1.Documents over coordinator.writes, bulk and delete_by_filter, and the reading half."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from coordinator.bulk import Bulk
from coordinator.deadline import Clock, Deadline
from coordinator.delete_by_filter import DeleteByFilter
from coordinator.services.reads import DocumentReads
from coordinator.writes import Writes
from kintsugi.v1 import documents_pb2, documents_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class DocumentsService(documents_pb2_grpc.DocumentsServicer):
    """`write_deadline_s` is for callers that set none, and for each chunk of a bulk call."""

    def __init__(
        self,
        writes: Writes,
        bulk: Bulk,
        by_filter: DeleteByFilter,
        reads: DocumentReads,
        write_deadline_s: float,
        clock: Clock,
    ) -> None:
        self._writes = writes
        self._bulk = bulk
        self._by_filter = by_filter
        self._reads = reads
        self._write_deadline_s = write_deadline_s
        self._clock = clock

    async def Upsert(self, request: documents_pb2.UpsertRequest, context: Context) -> documents_pb2.WriteResponse:
        return await self._writes.upsert(request, self._deadline(context))

    async def BulkUpsert(
        self, request_iterator: AsyncIterator[documents_pb2.BulkUpsertRequest], context: Context
    ) -> AsyncIterator[documents_pb2.BulkUpsertResponse]:
        def chunk_deadline() -> Deadline:
            whole_call = self._deadline(context)
            return min(whole_call, Deadline.after(self._write_deadline_s, self._clock), key=lambda one: one.at)

        async for response in self._bulk.upsert(request_iterator, chunk_deadline):
            yield response

    async def Delete(self, request: documents_pb2.DeleteRequest, context: Context) -> documents_pb2.WriteResponse:
        return await self._writes.delete(request, self._deadline(context))

    async def DeleteByFilter(
        self, request: documents_pb2.DeleteByFilterRequest, context: Context
    ) -> documents_pb2.DeleteByFilterResponse:
        return await self._by_filter.run(request, self._deadline(context))

    async def Get(self, request: documents_pb2.GetRequest, context: Context) -> documents_pb2.GetResponse:
        return await self._reads.get(request, context)

    async def Count(self, request: documents_pb2.CountRequest, context: Context) -> documents_pb2.CountResponse:
        return await self._reads.count(request, context)

    async def Scroll(self, request: documents_pb2.ScrollRequest, context: Context) -> documents_pb2.ScrollResponse:
        return await self._reads.scroll(request, context)

    def _deadline(self, context: Context) -> Deadline:
        return Deadline.of_call(context, self._clock, self._write_deadline_s)
