"""A small cluster as readers see it: fake shard servers on loopback, a registry that tests change at will."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import grpc
import grpc.aio
import msgspec
import numpy as np
import pytest

from coordinator.load import HedgeSettings
from coordinator.reading import Reading, ReadSettings, build_reading
from kintsugi import columns, ids, metrics
from kintsugi.errors import KintsugiError, NotFound
from kintsugi.filters.matching import group_value, matches
from kintsugi.filters.tree import Value
from kintsugi.filters.wire import from_message, value_message, value_of_message
from kintsugi.internal.v1 import shard_pb2, shard_pb2_grpc
from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.records import (
    Collection,
    EpochStart,
    LogState,
    Member,
    Model,
    ReplicaState,
    Role,
    Shard,
    Snapshot,
    Upgrade,
    UpgradeState,
    View,
    encode_record,
    field_of,
)
from kintsugi.registry.upgrades import collection_after
from kintsugi.rpc.channels import ChannelPool
from kintsugi.rpc.interceptor import ErrorInterceptor
from kintsugi.rpc.streaming import StreamedCalls, UnaryMethod
from kintsugi.v1 import types_pb2

DIMENSION = 4
UID = "uid1"
NAME = "docs"
WAIT_S = 10


@dataclass
class FakeReplica:
    """The documents of one shard, and how this replica behaves."""

    documents: dict[int | str, np.ndarray] = field(default_factory=dict)
    attributes: dict[int | str, dict] = field(default_factory=dict)
    error: KintsugiError | None = None
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list = field(default_factory=list)
    text: str = ""
    page_limit: int = 1000
    # Documents that only have a vector of the old model.
    lacking: set[int | str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.answering.set()

    async def enter(self, request) -> None:
        self.requests.append(request)
        self.asked.set()
        await self.answering.wait()
        if self.error is not None:
            raise self.error

    def ordered(self) -> list[int | str]:
        return sorted(self.documents, key=ids.order_key)

    def group(self, doc_id: int | str, request) -> Value | None:
        return group_value(self.attributes.get(doc_id, {}), request.group_by.attribute)

    def document(self, doc_id: int | str) -> types_pb2.Document:
        return types_pb2.Document(id=columns.pack_id(doc_id), version=7, text=self.text)


class FakeShardServer(shard_pb2_grpc.ShardServicer):
    def __init__(self) -> None:
        self.replicas: dict[int, FakeReplica] = {}
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._streamed = StreamedCalls(
            {
                shard_pb2.ShardSearchRequest: UnaryMethod(
                    "kintsugi.internal.v1.Shard/Search",
                    lambda request, time_left: self.Search(request, time_left),  # noqa: PLW0108 -- tests replace it
                )
            },
            lambda number, answer, status: shard_pb2.StreamedAnswer(number=number, answer=answer, status=status),
            asyncio.Event(),
        )
        self._server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        shard_pb2_grpc.add_ShardServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def _replica(self, request) -> FakeReplica:
        replica = self.replicas.get(request.replica.shard)
        if replica is None or request.replica.collection_uid != UID:
            raise NotFound(f"shard {request.replica.shard} is not hosted here")
        await replica.enter(request)
        return replica

    async def Search(self, request, context):
        replica = await self._replica(request)
        queries = np.frombuffer(request.queries, "<f4").reshape(request.count, -1)
        hits = [_found(replica, query, request) for query in queries]
        flat = [hit for one in hits for hit in one]
        return shard_pb2.ShardSearchResponse(
            counts=[len(one) for one in hits],
            ids=columns.pack_ids([doc_id for doc_id, _ in flat]),
            scores=columns.pack_f64([score for _, score in flat]),
            versions=columns.pack_u64([7] * len(flat)),
            texts=[replica.text] * len(flat) if request.fields.text else [],
            documents=len(replica.documents),
            documents_with_vector=len(replica.documents) - len(replica.lacking),
            projected=bytes(doc_id in replica.lacking for doc_id, _ in flat) if replica.lacking else b"",
            projected_model="m1" if replica.lacking else "",
            unmigrated=columns.pack_ids(sorted(replica.lacking)) if request.tell_unmigrated else None,
            other_models=[types_pb2.ModelCoverage(model="m1", documents=len(replica.lacking))]
            if replica.lacking
            else [],
            groups=[value_message(replica.group(doc_id, request)) for doc_id, _ in flat]
            if request.HasField("group_by")
            else [],
        )

    async def SearchStream(self, request_iterator, context):
        await self._streamed.run(context, lambda message: message.search if message.HasField("search") else None)

    async def GetDocuments(self, request, context):
        replica = await self._replica(request)
        wanted = columns.unpack_ids(request.ids, "ids")
        return shard_pb2.GetDocumentsResponse(
            documents=[replica.document(doc_id) for doc_id in wanted if doc_id in replica.documents]
        )

    async def CountDocuments(self, request, context):
        return shard_pb2.CountDocumentsResponse(count=len((await self._replica(request)).documents))

    async def ScrollDocuments(self, request, context):
        replica = await self._replica(request)
        behind = [doc_id for doc_id in replica.ordered() if ids.encode(doc_id) > request.after]
        given = behind[: min(request.limit, replica.page_limit)]
        return shard_pb2.ScrollDocumentsResponse(
            documents=[replica.document(doc_id) for doc_id in given], more=len(given) < len(behind)
        )


def _found(replica: FakeReplica, query, request) -> list[tuple[int | str, float]]:
    """What a shard answers, by looking at every document."""
    condition = from_message(request.filter) if request.HasField("filter") else None
    only = [value_of_message(one) for one in request.only_groups]
    hits = [
        (doc_id, score)
        for doc_id, score in _top_k(replica.documents, query, len(replica.documents))
        if (condition is None or matches(condition, replica.attributes.get(doc_id, {})))
        and (not request.HasField("min_score") or score >= request.min_score)
    ]
    if not request.HasField("group_by"):
        return hits[: request.k]
    counts: dict = {}
    kept = []
    for doc_id, score in hits:
        group = replica.group(doc_id, request)
        if group is None or (only and group not in only) or (group not in counts and len(counts) == request.k):
            continue
        counts[group] = counts.get(group, 0) + 1
        if counts[group] <= request.group_by.size:
            kept.append((doc_id, score))
    return kept


def _top_k(documents, query, k) -> list[tuple[int | str, float]]:
    if not documents:
        return []
    scores = metrics.scores(Metric.DOT, query, np.stack(list(documents.values())))
    hits = zip(documents, scores.tolist(), strict=True)
    return sorted(hits, key=lambda hit: (-hit[1], ids.order_key(hit[0])))[:k]


@dataclass
class FakeLease:
    documents: Mapping[str, int]


class FakeRegistry:
    """`pending` becomes the view at the next refresh."""

    def __init__(self) -> None:
        self.view: View | None = None
        self.pending: View | None = None
        self.leases: dict[str, FakeLease] = {}
        self.refreshes = 0
        self.callbacks: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    async def refresh(self) -> None:
        self.refreshes += 1
        if self.pending is not None:
            self.view, self.pending = self.pending, None


class World:
    """`servers[member]` hosts the replicas; `view()` makes the registry's view of them."""

    def __init__(self) -> None:
        self.servers: dict[str, FakeShardServer] = {}
        self.registry = FakeRegistry()
        self.channels = ChannelPool()
        self.epochs: tuple[EpochStart, ...] = (EpochStart(1, 0),)
        self.shards: list[list[str]] = []

    async def start(self, shards: list[list[str]]) -> None:
        """`shards` lists the members that hold a replica of each shard."""
        self.shards = shards
        for shard, members in enumerate(shards):
            for member in members:
                if member not in self.servers:
                    self.servers[member] = FakeShardServer()
                    await self.servers[member].start()
                self.servers[member].replicas[shard] = FakeReplica()
        self.registry.view = self.view(1)

    def view(self, revision: int, *, metric: Metric = Metric.DOT, upgrade: Upgrade | None = None) -> View:
        model = Model(number=1, name="m1", dimension=DIMENSION, metric=metric)
        collection = Collection(
            uid=UID, name=NAME, shards=len(self.shards), replicas=len(self.shards[0]), metric=metric,
            stored=StoredType.F32, models=(model,), serving_model="m1", created_at_us=0,
        )  # fmt: skip
        records = [collection]
        if upgrade is not None:
            begun = msgspec.structs.replace(upgrade, state=UpgradeState.BACKFILLING)
            records = [collection_after(collection_after(collection, begun), upgrade), upgrade]
        records += [Member(id=m, role=Role.SHARD, address=s.address, version="0") for m, s in self.servers.items()]
        for number, members in enumerate(self.shards):
            states = dict.fromkeys(members, ReplicaState.IN_SYNC)
            records.append(
                Shard(collection_uid=UID, shard=number, epochs=self.epochs, log_state=LogState.OPEN, replicas=states)
            )
        fields = {field_of(record): encode_record(record) for record in records}
        return Snapshot("c", 1, revision, str(revision), fields).view()

    def put(
        self, documents: Mapping[int | str, np.ndarray], attributes: Mapping[int | str, dict] | None = None
    ) -> None:
        for doc_id, vector in documents.items():
            shard = ids.shard_of(doc_id, len(self.shards))
            for member in self.shards[shard]:
                self.servers[member].replicas[shard].documents[doc_id] = vector
                self.servers[member].replicas[shard].attributes[doc_id] = (attributes or {}).get(doc_id, {})

    def replica(self, member: str, shard: int) -> FakeReplica:
        return self.servers[member].replicas[shard]

    def stub(self, address: str) -> shard_pb2_grpc.ShardStub:
        return shard_pb2_grpc.ShardStub(self.channels.get(address))

    def reading(self, settings: ReadSettings | None = None) -> Reading:
        return build_reading(
            self.registry, self.stub, asyncio.Event(), settings or ReadSettings(hedging=HedgeSettings(first_delay_s=5))
        )

    async def close(self) -> None:
        for server in self.servers.values():
            for replica in server.replicas.values():
                replica.answering.set()
            with contextlib.suppress(grpc.aio.UsageError):
                await server.stop()
        await self.channels.close()


class Context:
    """The part of a servicer context that reading uses."""

    def __init__(self, seconds: float | None = WAIT_S) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    def time_remaining(self) -> float | None:
        return None if self._at is None else self._at - time.monotonic()


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


@pytest.fixture
def context():
    return Context


def documents(count: int) -> dict[int | str, np.ndarray]:
    generator = np.random.default_rng(count)
    vectors = generator.integers(-3, 4, (count, DIMENSION)).astype(np.float32)
    return {i if i % 3 else f"d{i}": vector for i, vector in enumerate(vectors)}


@pytest.fixture
def make_documents():
    return documents


@pytest.fixture
def oracle():
    return _top_k
