"""What the tests of upgrades share: a collection with a plan that fits it, and replicas that say how far they are."""

import json
import time
from functools import partial

import msgspec
import numpy as np
import pytest

from coordinator.deadline import Deadline
from coordinator.upgrade_reports import UpgradeReports
from coordinator.upgrades import Upgrades
from coordinator.views import Views
from kintsugi.errors import NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.metrics import Metric, StoredType
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.projection import Affine, Kind, unit
from kintsugi.registry.leases import LeaseInfo
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
    encode_record,
    field_of,
)
from kintsugi.registry.store import Delete
from kintsugi.registry.upgrades import collection_after
from kintsugi.registry.watch import RegistryHealth
from kintsugi.v1 import types_pb2, upgrades_pb2

MEMBERS = ("shard-a", "shard-b")
OLD_DIMENSION, NEW_DIMENSION, ANCHORS = 6, 8, 120


class FakeRegistry:
    """A RegistryWatcher over a registry in memory."""

    def __init__(self, records):
        fields = {field_of(one): encode_record(one) for one in records}
        self.view = Snapshot("c1", 1, 1, "d1", fields).view()
        self.health = RegistryHealth.OK
        self.message = ""
        self.leases = {member: LeaseInfo(1) for member in MEMBERS}

    def subscribe(self, _callback):
        return None

    async def refresh(self):
        pass

    async def update(self, change):
        fields = dict(self.view.snapshot.fields)
        for one in change(self.view):
            if isinstance(one, Delete):
                fields.pop(one.field, None)
            else:
                fields[field_of(one)] = encode_record(one)
        revision = self.view.snapshot.revision + (fields != self.view.snapshot.fields)
        self.view = Snapshot("c1", 1, revision, f"d{revision}", fields).view()
        return self.view


class FakeArtifacts:
    """ArtifactCache in memory. What is not in `kept` is about to expire when `is_late`."""

    def __init__(self):
        self.held = {}
        self.kept = set()
        self.is_late = False
        self.is_away = False

    async def put(self, data):
        name = artifact.digest(data)
        self.held[name] = data
        return name

    async def get(self, name):
        return self.held.get(name)

    async def lasts(self, name):
        return name in self.held and (name in self.kept or not self.is_late)

    async def keep(self, name):
        if self.is_away:
            raise Unavailable("redis is away")
        self.kept.add(name)

    async def drop(self, name):
        self.held.pop(name, None)


class FakeServers:
    """Shard servers whose replicas of shard 0 and 1 serve, hold 100 documents each, and are as far as a test says."""

    def __init__(self):
        self.silent = set()
        self.serving = ["old"]
        self.progress = {"documents": 100, "with_old_vector": 100, "with_new_vector": 0}
        self.of_member = {}
        self.seq = 50
        self.seq_of = {}
        self.indexed = True
        self.live_recall = 1.0
        self.live_queries = 100
        self.checked_recall = 1.0
        self.checks = []
        self.artifacts = {}
        # Happens once a server is asked how far it is.
        self.asked = None

    async def status(self, member):
        if self.asked is not None:
            await self.asked()
        if member in self.silent:
            raise Unavailable(f"{member} is away")
        response = shard_pb2.GetServerStatusResponse(member=member)
        for number in range(2):
            hosted = response.replicas.add(serving_models=self.serving)
            hosted.replica.collection_uid, hosted.replica.shard = "uid1", number
            hosted.status.phase, hosted.status.durable_seq = "serving", self.seq_of.get(member, self.seq)
            for field, value in {**self.progress, **self.of_member.get(member, {})}.items():
                setattr(hosted.upgrade, field, value)
            state = "serving" if self.indexed else "building"
            version = hosted.status.index_versions.add(model="new", state=state)
            if self.live_recall is not None:
                version.live_recall, version.live_recall_queries = self.live_recall, self.live_queries
        return response

    async def verify(self, member, request, _timeout_s):
        self.checks.append((member, request.model))
        return shard_pb2.VerifyReplicaResponse(queries=request.queries, recall=self.checked_recall)

    async def artifact(self, member, digest):
        if digest not in self.artifacts:
            raise NotFound(f"{member} has no artifact {digest}")
        return self.artifacts[digest]


def make_spaces(seed=0):
    """Anchors of two models that a linear map relates."""
    random = np.random.default_rng(seed)
    new = unit(random.normal(size=(ANCHORS, NEW_DIMENSION)).astype(np.float32))
    weights = random.normal(size=(NEW_DIMENSION, OLD_DIMENSION)).astype(np.float32)
    return weights, Anchors(unit(new @ weights), new)


def linear(weights, kind=Kind.RIDGE, metric=Metric.COSINE):
    return Affine(kind, metric, weights.astype(np.float32), np.zeros(weights.shape[1], np.float32))


def make_plan(held, **changes):
    """A plan that passes, with its fields replaced by `changes`. Artifacts that are given as bytes are put into `held`, and
    named by their digests."""
    weights, anchors = make_spaces()
    back = artifact.pack(linear(weights))
    fields = {
        "new_model": types_pb2.Model(name="new", dimension=NEW_DIMENSION),
        "strategy": upgrades_pb2.UPGRADE_STRATEGY_QUERY_BRIDGE,
        "calibration": upgrades_pb2.SCORE_CALIBRATION_QUANTILES,
        "bridge": back,
        "reverse": back,
        "anchors": anchors_file.pack(anchors),
        "report": json.dumps({"report": {"reasons": ["it is worse", "by much"]}}).encode(),
    }
    fields |= changes
    for field in ("bridge", "gallery_map", "reverse", "anchors", "uncertainty"):
        data = fields.get(field, "")
        if isinstance(data, bytes):
            fields[field] = artifact.digest(data)
            held[fields[field]] = data
    return upgrades_pb2.UpgradePlan(**fields)


def make_collection():
    old = Model(1, "old", OLD_DIMENSION, Metric.COSINE)
    return Collection("uid1", "docs", 2, 2, Metric.COSINE, StoredType.F32, (old,), "old", 1)


@pytest.fixture
def collection():
    return make_collection()


@pytest.fixture
def registry(collection):
    shards = [
        Shard("uid1", number, (EpochStart(1, 0),), LogState.OPEN, dict.fromkeys(MEMBERS, ReplicaState.IN_SYNC))
        for number in range(2)
    ]
    members = [Member(member, Role.SHARD, f"{member}:1", "1") for member in MEMBERS]
    return FakeRegistry([collection, *shards, *members])


@pytest.fixture
def servers():
    return FakeServers()


@pytest.fixture
def artifacts():
    return FakeArtifacts()


@pytest.fixture
def reports(registry, servers, artifacts):
    return UpgradeReports(registry, Views(registry, time.monotonic), servers, artifacts)


@pytest.fixture
def upgrades(registry, reports, artifacts):
    return Upgrades(registry, Views(registry, time.monotonic), reports, artifacts, lambda: 5)


@pytest.fixture
def deadline():
    return Deadline.after(5.0, time.monotonic)


@pytest.fixture
def plan(artifacts):
    """make_plan, whose artifacts are uploaded."""
    return partial(make_plan, artifacts.held)


@pytest.fixture
def planned(upgrades, deadline, plan):
    """Registers a plan: planned(**changes of the plan)."""

    async def run(*, force=False, **changes):
        request = upgrades_pb2.PlanUpgradeRequest(collection="docs", plan=plan(**changes), force=force)
        return await upgrades.plan(request, deadline)

    return run


@pytest.fixture
def spaces():
    """The map between the two spaces and the anchors in both, and the maker of projections."""
    return (*make_spaces(), linear)


@pytest.fixture
def place(registry):
    """Puts the upgrade into a state: place(UpgradeState...)."""

    async def run(state, **changes):
        def change(view):
            after = msgspec.structs.replace(view.upgrades["uid1"], state=state, **changes)
            return [after, collection_after(view.collections["uid1"], after)]

        await registry.update(change)

    return run
