"""A coordinator in this process: the public services over a dictionary, with failures on request.

`faults[rpc]` is a queue: each call of that name takes its first entry and, unless it is None, fails with it. `requests`
records what arrived. A repeated request id is applied once, as in the cluster.
"""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
import numpy as np
import pytest

from coordinator.services.search import request_of, streamed_calls
from kintsugi import columns, tokens
from kintsugi.errors import InvalidArgument, KintsugiError, NotFound, Unavailable
from kintsugi.ids import DocId, order_key
from kintsugi.position import Position
from kintsugi.rpc.interceptor import ErrorInterceptor
from kintsugi.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    filters_pb2,
    search_pb2,
    search_pb2_grpc,
    types_pb2,
)

# The group of every hit of a grouped search.
GROUP = filters_pb2.AttributeValue(text="blue")
COVERAGE = types_pb2.Coverage(shards_total=2, shards_answered=2, documents_total=7, documents_covered=7)


class FakeCoordinator:
    def __init__(self) -> None:
        self.faults: dict[str, deque[KintsugiError | str | None]] = defaultdict(deque)
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.collections: dict[str, collections_pb2.Collection] = {}
        self.documents: dict[DocId, types_pb2.Document] = {}
        self.answered: dict[str, documents_pb2.WriteResponse] = {}
        self.applications: list[str] = []
        # Items of these ids are not settled the given number of times.
        self.unsettled: dict[DocId, int] = {}
        self.hold: asyncio.Event | None = None
        # From this number on, calls of the rpc are never answered.
        self.silent_after: dict[str, int] = {}
        self.streaming = asyncio.Event()
        # Streams of searches that were opened, and whether there are any.
        self.streams = 0
        self.knows_streams = True
        self.refused_streams = 0
        self.seq = 0

    async def take(self, rpc: str, request: Any) -> None:
        self.requests[rpc].append(request)
        if self.hold is not None:
            await self.hold.wait()
        if len(self.requests[rpc]) > self.silent_after.get(rpc, 2**62):
            await asyncio.Event().wait()
        if self.faults[rpc]:
            fault = self.faults[rpc].popleft()
            if isinstance(fault, KintsugiError):
                raise fault

    def write(self, request: documents_pb2.UpsertRequest) -> documents_pb2.WriteResponse:
        if request.request_id in self.answered:
            return self.answered[request.request_id]
        waiting = [columns.unpack_id(document.id, "id") for document in request.documents]
        open_ids = [doc_id for doc_id in waiting if self.unsettled.get(doc_id, 0) > 0]
        for doc_id in open_ids:
            self.unsettled[doc_id] -= 1
        if open_ids:
            results = [
                documents_pb2.ItemResult(outcome=documents_pb2.WRITE_OUTCOME_NOT_WRITTEN, message="the log is moving")
                for _ in waiting
            ]
            return documents_pb2.WriteResponse(results=results, request_id=request.request_id)
        self.applications.append(request.request_id)
        response = documents_pb2.WriteResponse(
            results=[self._put(i, document, request) for i, document in enumerate(request.documents)],
            token=tokens.Token("uid", ((0, Position(1, self.seq, b"d" * 20)),)).encode(),
            request_id=request.request_id,
        )
        self.answered[request.request_id] = response
        return response

    def _put(
        self, i: int, document: documents_pb2.DocumentWrite, request: documents_pb2.UpsertRequest
    ) -> documents_pb2.ItemResult:
        doc_id = columns.unpack_id(document.id, "id")
        if document.condition == documents_pb2.WRITE_CONDITION_INSERT_ONLY and doc_id in self.documents:
            return documents_pb2.ItemResult(outcome=documents_pb2.WRITE_OUTCOME_REFUSED, message="it exists")
        self.seq += 1
        vectors = [
            types_pb2.ModelVectors(
                model=one.model or "m",
                block=columns.pack_vectors(
                    columns.unpack_vectors(one.block, "v", dimension=one.block.dimension, max_count=1000)[i : i + 1]
                ),
            )
            for one in request.vectors
        ]
        self.documents[doc_id] = types_pb2.Document(
            id=document.id, version=self.seq, attributes=document.attributes, text=document.text, vectors=vectors
        )
        return documents_pb2.ItemResult(
            outcome=documents_pb2.WRITE_OUTCOME_APPLIED, version=self.seq, found=True, message=""
        )

    def ranked(self, query: np.ndarray, k: int) -> list[tuple[float, types_pb2.Document]]:
        scored = []
        for document in self.documents.values():
            block = document.vectors[0].block
            vector = columns.unpack_vectors(block, "v", dimension=block.dimension, max_count=1)[0]
            scored.append((float(vector.astype(np.float64) @ query), document))
        return sorted(scored, key=lambda pair: -pair[0])[:k]


class _Documents(documents_pb2_grpc.DocumentsServicer):
    def __init__(self, fake: FakeCoordinator) -> None:
        self.fake = fake

    async def Upsert(self, request, context):
        await self.fake.take("Upsert", request)
        if request.collection == "absent":
            raise NotFound("collection absent does not exist", field="collection")
        return self.fake.write(request)

    async def BulkUpsert(self, request_iterator, context):
        expected = 0
        self.fake.streaming.set()
        await self.fake.take("BulkUpsert", None)
        async for request in request_iterator:
            self.fake.requests["chunk"].append(request)
            assert request.chunk == expected
            expected += 1
            fault = self.fake.faults["chunk"].popleft() if self.fake.faults["chunk"] else None
            if isinstance(fault, KintsugiError):
                raise fault
            response = self.fake.write(request.upsert)
            if fault == "lose the answer":
                raise Unavailable("the process is gone")
            if fault == "end the call":
                return
            yield documents_pb2.BulkUpsertResponse(chunk=request.chunk, response=response)

    async def Delete(self, request, context):
        await self.fake.take("Delete", request)
        results = []
        for doc_id in request.ids:
            found = self.fake.documents.pop(columns.unpack_id(doc_id, "id"), None) is not None
            results.append(documents_pb2.ItemResult(outcome=documents_pb2.WRITE_OUTCOME_APPLIED, found=found))
        return documents_pb2.WriteResponse(results=results, request_id=request.request_id, token=b"token")

    async def Get(self, request, context):
        await self.fake.take("Get", request)
        found = [(doc_id, self.fake.documents.get(columns.unpack_id(doc_id, "id"))) for doc_id in request.ids]
        return documents_pb2.GetResponse(
            documents=[document for _, document in found if document is not None],
            missing=[doc_id for doc_id, document in found if document is None],
        )

    async def Count(self, request, context):
        await self.fake.take("Count", request)
        return documents_pb2.CountResponse(count=len(self.fake.documents))

    async def DeleteByFilter(self, request, context):
        """Deletes documents in the order of their ids, up to the limit; every filter holds."""
        await self.fake.take(
            "DeleteByFilter", documents_pb2.DeleteByFilterRequest.FromString(request.SerializeToString())
        )
        chosen = sorted(self.fake.documents, key=order_key)[: request.limit]
        for doc_id in chosen:
            del self.fake.documents[doc_id]
        self.fake.seq += len(chosen)
        token = tokens.Token.of("uid", [(self.fake.seq % 2, Position(1, self.fake.seq, b"d"))]).encode()
        return documents_pb2.DeleteByFilterResponse(deleted=len(chosen), more=bool(self.fake.documents), token=token)

    async def Scroll(self, request, context):
        await self.fake.take("Scroll", request)
        first = int(request.page_token or b"0")
        ordered = sorted(self.fake.documents, key=order_key)
        last = first + (request.limit or 100)
        return documents_pb2.ScrollResponse(
            documents=[self.fake.documents[doc_id] for doc_id in ordered[first:last]],
            next_page_token=str(last).encode() if last < len(ordered) else b"",
        )


class _Search(search_pb2_grpc.SearchServicer):
    def __init__(self, fake: FakeCoordinator) -> None:
        self.fake = fake
        self._streamed = streamed_calls(self, asyncio.Event())

    async def SearchStream(self, request_iterator, context):
        if not self.fake.knows_streams:
            self.fake.refused_streams += 1
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "method not found")
        self.fake.streams += 1
        await self._streamed.run(context, request_of)

    async def Search(self, request, context):
        await self.fake.take("Search", request)
        query = np.frombuffer(request.vectors[0].data, "<f4")
        if not query.any():
            raise InvalidArgument("vectors[0]", "is a zero vector", "must have a direction under cosine")
        hits = [
            search_pb2.Hit(
                id=document.id,
                score=score,
                version=document.version,
                model="m",
                attributes=document.attributes if request.options.fields.attributes else "",
                text=document.text if request.options.fields.text else "",
                group=GROUP if request.options.HasField("group_by") else None,
            )
            for score, document in self.fake.ranked(query, request.options.k or 10)
        ]
        return search_pb2.SearchResponse(hits=hits, coverage=COVERAGE)

    async def SearchBatch(self, request, context):
        await self.fake.take("SearchBatch", request)
        block = request.vectors[0].block
        queries = columns.unpack_vectors(block, "v", dimension=block.dimension, max_count=256)
        if not queries.any(axis=1).all():
            raise InvalidArgument("vectors[0]", "is a zero vector", "must have a direction under cosine")
        ranked = [self.fake.ranked(query, request.options.k or 10) for query in queries]
        flat = [pair for one in ranked for pair in one]
        return search_pb2.SearchBatchResponse(
            counts=[len(one) for one in ranked],
            ids=columns.pack_ids([columns.unpack_id(document.id, "id") for _, document in flat]),
            scores=columns.pack_f64([score for score, _ in flat]),
            versions=columns.pack_u64([document.version for _, document in flat]),
            attributes=[document.attributes for _, document in flat] if request.options.fields.attributes else [],
            texts=[document.text for _, document in flat] if request.options.fields.text else [],
            model="m",
            coverage=COVERAGE,
            groups=[GROUP] * len(flat) if request.options.HasField("group_by") else [],
        )


class _Collections(collections_pb2_grpc.CollectionsServicer):
    def __init__(self, fake: FakeCoordinator) -> None:
        self.fake = fake

    async def Create(self, request, context):
        await self.fake.take("Create", request)
        spec = collections_pb2.CollectionSpec()
        spec.CopyFrom(request.spec)
        spec.shards, spec.replicas = spec.shards or 1, spec.replicas or 1
        made = collections_pb2.Collection(spec=spec, uid="uid", serving_model=spec.models[0].name)
        made.created_at.FromSeconds(1)
        return collections_pb2.CreateCollectionResponse(collection=self.fake.collections.setdefault(spec.name, made))

    async def Get(self, request, context):
        await self.fake.take("GetCollection", request)
        if request.name not in self.fake.collections:
            raise NotFound(f"collection {request.name} does not exist", field="name")
        return collections_pb2.GetCollectionResponse(collection=self.fake.collections[request.name])

    async def List(self, request, context):
        await self.fake.take("List", request)
        return collections_pb2.ListCollectionsResponse(collections=self.fake.collections.values())

    async def Encode(self, request, context):
        await self.fake.take("Encode", request)
        self.fake.collections[request.name].spec.encoding.CopyFrom(request.encoding)
        return collections_pb2.EncodeCollectionResponse(collection=self.fake.collections[request.name])

    async def Delete(self, request, context):
        self.fake.requests["DeleteCollection"].append(request)
        there = self.fake.collections.pop(request.name, None)
        if self.fake.faults["DeleteCollection"]:
            raise self.fake.faults["DeleteCollection"].popleft()
        if there is None:
            raise NotFound(f"collection {request.name} does not exist", field="name")
        return collections_pb2.DeleteCollectionResponse()


class _Cluster(cluster_pb2_grpc.ClusterServicer):
    def __init__(self, fake: FakeCoordinator) -> None:
        self.fake = fake

    async def GetStatus(self, request, context):
        await self.fake.take("GetStatus", request)
        replica = cluster_pb2.ReplicaStatus(
            member="s0", state="in-sync", index_versions=[cluster_pb2.IndexVersionStatus(version=1, encoding="i8")]
        )
        shard = cluster_pb2.ShardStatus(log_state="open", replicas=[replica])
        return cluster_pb2.GetStatusResponse(
            cluster_id="c",
            registry="ok",
            members=[cluster_pb2.MemberStatus(id="s0", role="shard", alive=True)],
            collections=[cluster_pb2.CollectionStatus(name="docs", shards=[shard])],
        )

    async def AcceptLoss(self, request, context):
        await self.fake.take("AcceptLoss", request)
        return cluster_pb2.AcceptLossResponse(given_up_members=["s1"], kept_seq=9, message="given up")

    async def Verify(self, request, context):
        await self.fake.take("Verify", request)
        yield cluster_pb2.VerifyResponse(
            member="s0", replicas=2, seq=7, log_digest=b"l", content_digest=b"c", documents=3, index_version=1,
            encoding="i8", queries=request.queries, recall=0.9,
        )  # fmt: skip
        await self.fake.take("Verify second", request)
        yield cluster_pb2.VerifyResponse(member="s1", replicas=2, failure="no answer")


async def serve(fake: FakeCoordinator, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str]:
    """Starts the fake and returns its server and address."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    documents_pb2_grpc.add_DocumentsServicer_to_server(_Documents(fake), server)
    search_pb2_grpc.add_SearchServicer_to_server(_Search(fake), server)
    collections_pb2_grpc.add_CollectionsServicer_to_server(_Collections(fake), server)
    cluster_pb2_grpc.add_ClusterServicer_to_server(_Cluster(fake), server)
    port = server.add_insecure_port(address)
    await server.start()
    return server, f"127.0.0.1:{port}"


@pytest.fixture
def fake() -> FakeCoordinator:
    return FakeCoordinator()


@pytest.fixture
async def address(fake: FakeCoordinator) -> AsyncIterator[str]:
    server, address = await serve(fake)
    yield address
    await server.stop(None)


@dataclass(frozen=True)
class Another:
    """A second coordinator, with documents of its own."""

    fake: FakeCoordinator
    server: grpc.aio.Server
    address: str


@pytest.fixture
async def another() -> AsyncIterator[Another]:
    fake = FakeCoordinator()
    server, address = await serve(fake)
    yield Another(fake, server, address)
    await server.stop(None)


@pytest.fixture
def served() -> Iterator[Callable[[FakeCoordinator], str]]:
    """Serves fakes from a thread, for the synchronous client: served(fake) returns an address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[grpc.aio.Server] = []

    def start(fake: FakeCoordinator) -> str:
        server, address = asyncio.run_coroutine_threadsafe(serve(fake), loop).result(10)
        servers.append(server)
        return address

    yield start
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
