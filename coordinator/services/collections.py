"""kintsugi.v1.Collections over coordinator.collections."""

from typing import Any

import grpc.aio

from coordinator.collection_spec import to_message
from coordinator.collections import Collections
from coordinator.deadline import Clock, Deadline
from kintsugi.errors import InvalidArgument
from kintsugi.v1 import collections_pb2, collections_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

# Left of a call's deadline to tell what was not up in time.
_ANSWER_RESERVE_S = 0.1


class CollectionsService(collections_pb2_grpc.CollectionsServicer):
    """`create_deadline_s` is for callers that set none."""

    def __init__(self, collections: Collections, create_deadline_s: float, clock: Clock) -> None:
        self._collections = collections
        self._create_deadline_s = create_deadline_s
        self._clock = clock

    async def Create(
        self, request: collections_pb2.CreateCollectionRequest, context: Context
    ) -> collections_pb2.CreateCollectionResponse:
        deadline = Deadline.of_call(context, self._clock, self._create_deadline_s).earlier_by(_ANSWER_RESERVE_S)
        created = await self._collections.create(request.spec, deadline)
        return collections_pb2.CreateCollectionResponse(collection=to_message(created))

    async def Get(
        self, request: collections_pb2.GetCollectionRequest, context: Context
    ) -> collections_pb2.GetCollectionResponse:
        found = await self._collections.get(request.name, Deadline.of_call(context, self._clock))
        return collections_pb2.GetCollectionResponse(collection=to_message(found))

    async def List(
        self, request: collections_pb2.ListCollectionsRequest, context: Context
    ) -> collections_pb2.ListCollectionsResponse:
        found = await self._collections.list_all()
        return collections_pb2.ListCollectionsResponse(collections=[to_message(collection) for collection in found])

    async def Delete(
        self, request: collections_pb2.DeleteCollectionRequest, context: Context
    ) -> collections_pb2.DeleteCollectionResponse:
        await self._collections.delete(request.name)
        return collections_pb2.DeleteCollectionResponse()

    async def Encode(
        self, request: collections_pb2.EncodeCollectionRequest, context: Context
    ) -> collections_pb2.EncodeCollectionResponse:
        if not request.HasField("encoding"):
            raise InvalidArgument("encoding", "is not set", "must be set; an empty one leaves the choice to Kintsugi")
        changed = await self._collections.encode(request.name, request.encoding)
        return collections_pb2.EncodeCollectionResponse(collection=to_message(changed))
