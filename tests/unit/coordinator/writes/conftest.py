"""What the tests of the write path share: a collection, a registry that holds still, replicas that answer."""

import asyncio
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from coordinator.deadline import Deadline
from kintsugi import columns
from kintsugi.internal.v1 import shard_pb2
from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import (
    Collection,
    EpochStart,
    LogState,
    Member,
    Model,
    Record,
    ReplicaState,
    Role,
    Shard,
    Snapshot,
    View,
    encode_record,
    field_of,
)
from kintsugi.registry.store import Delete
from kintsugi.registry.watch import RegistryHealth
from kintsugi.v1 import documents_pb2

MEMBERS = ("shard-a", "shard-b")


def make_collection(*, metric=Metric.COSINE, stored=StoredType.F32, shards=2, models=1, dimension=3) -> Collection:
    return Collection(
        uid="uid1",
        name="docs",
        shards=shards,
        replicas=2,
        metric=metric,
        stored=stored,
        models=tuple(Model(n + 1, f"m{n + 1}", dimension, metric) for n in range(models)),
        serving_model="m1",
        created_at_us=1,
    )


def make_shard(number=0, *, epochs=((1, 0),), log_state=LogState.OPEN, replicas=None) -> Shard:
    states = replicas or dict.fromkeys(MEMBERS, ReplicaState.IN_SYNC)
    return Shard("uid1", number, tuple(EpochStart(*start) for start in epochs), log_state, states)


def make_snapshot(records: Sequence[Record], *, incarnation=1, revision=1) -> Snapshot:
    return Snapshot("c1", incarnation, revision, f"d{revision}", {field_of(one): encode_record(one) for one in records})


class FakeRegistry:
    """A RegistryWatcher over a registry in memory. `newer` is adopted by the next refresh."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.view: View | None = make_snapshot(records).view()
        self.health = RegistryHealth.OK
        self.message = ""
        self.leases = {member: LeaseInfo(1) for member in MEMBERS}
        self.newer: Snapshot | None = None
        self.absent_s: dict[str, float] = {}
        self._callbacks: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> object:
        self._callbacks.append(callback)
        return None

    def set(self, *records: Record, incarnation: int | None = None) -> None:
        """Puts records and tells everybody."""
        before = self.view.snapshot
        fields = {**before.fields, **{field_of(one): encode_record(one) for one in records}}
        self._adopt(fields, incarnation or before.incarnation)

    def set_health(self, health: RegistryHealth) -> None:
        self.health, self.message = health, f"it is {health.value}"
        self.notify()

    def notify(self) -> None:
        for callback in self._callbacks:
            callback()

    async def refresh(self) -> None:
        if self.newer is not None:
            self.view, self.newer = self.newer.view(), None
            self.notify()

    async def update(self, change) -> View:
        fields = dict(self.view.snapshot.fields)
        for one in change(self.view):
            if isinstance(one, Delete):
                fields.pop(one.field, None)
            else:
                fields[field_of(one)] = encode_record(one)
        if fields != self.view.snapshot.fields:
            self._adopt(fields, self.view.snapshot.incarnation)
        return self.view

    def seconds_without_lease(self, member: str) -> float:
        return self.absent_s.get(member, 0.0)

    def _adopt(self, fields: dict[str, bytes], incarnation: int) -> None:
        revision = self.view.snapshot.revision + 1
        self.view = Snapshot("c1", incarnation, revision, f"d{revision}", fields).view()
        self.notify()


class FakeReplicas:
    """Replicas that hold every write at once, unless told otherwise."""

    def __init__(self) -> None:
        self.silent: dict[str, Exception] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.outcome = shard_pb2.RECORD_OUTCOME_APPLIED
        self.positions: dict[str, shard_pb2.GetPositionResponse] = {}
        self.asked: list[tuple[str, shard_pb2.AwaitRequest]] = []
        self.position_calls = 0
        self.server_life = "life-1"

    async def server(self, _uid: str, _shard: int) -> str:
        """LogWriter.server."""
        return self.server_life

    async def position(self, member: str, _replica: shard_pb2.ReplicaRef) -> shard_pb2.GetPositionResponse:
        self.position_calls += 1
        if member in self.silent:
            raise self.silent[member]
        return self.positions.get(member, shard_pb2.GetPositionResponse())

    async def await_write(
        self, member: str, request: shard_pb2.AwaitRequest, _timeout_s: float
    ) -> shard_pb2.AwaitResponse:
        self.asked.append((member, request))
        if member in self.silent:
            raise self.silent[member]
        if member in self.held:
            await self.held[member].wait()
        seqs = range(request.outcomes_from, request.position.seq + 1)
        return shard_pb2.AwaitResponse(outcomes=[self.outcome for _ in seqs], versions=list(seqs))


@pytest.fixture
def collection() -> Collection:
    return make_collection()


@pytest.fixture
def registry(collection: Collection) -> FakeRegistry:
    members = [Member(member, Role.SHARD, f"{member}:1", "1") for member in MEMBERS]
    return FakeRegistry([collection, make_shard(0), make_shard(1), *members])


@pytest.fixture
def replicas() -> FakeReplicas:
    return FakeReplicas()


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(5.0, time.monotonic)


def upsert_request(count=2, *, dimension=3, **fields) -> documents_pb2.UpsertRequest:
    """A valid request: integer ids from 0, one vector each."""
    matrix = np.arange(1, count * dimension + 1, dtype=np.float32).reshape(count, dimension)
    request = documents_pb2.UpsertRequest(collection="docs", **fields)
    for index in range(count):
        request.documents.add(id=columns.pack_id(index))
    request.vectors.add(block=columns.pack_vectors(matrix))
    return request


@pytest.fixture
def kit() -> SimpleNamespace:
    """The makers above, for tests that need other values than the fixtures'."""
    return SimpleNamespace(
        collection=make_collection, shard=make_shard, snapshot=make_snapshot, upsert=upsert_request, members=MEMBERS
    )
