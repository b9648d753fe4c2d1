"""The client's calls of upgrades, over a service that records what arrives."""

import json
from datetime import UTC, datetime

import grpc.aio
import numpy as np
import pytest

from kintsugi import AsyncClient, Client, FailedPrecondition, InvalidArgument, Model, Unavailable, UpgradePlan, columns
from kintsugi.metrics import Metric
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.projection import Affine, Kind
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import UpgradeState
from kintsugi.rpc.interceptor import ErrorInterceptor
from kintsugi.sdk.upgrades import AsyncUpgrades
from kintsugi.v1 import types_pb2, upgrades_pb2, upgrades_pb2_grpc

BACK = Affine(Kind.RIDGE, Metric.COSINE, np.ones((6, 4), np.float32), np.zeros(4, np.float32))
PAIRS = Anchors(np.ones((50, 4), np.float32), np.ones((50, 6), np.float32))
PLAN = UpgradePlan(
    Model("new", 6), Strategy.BRIDGE, "quantiles", reverse=BACK, anchors=PAIRS, report=b"{}", bridge=artifact.pack(BACK)
)
UPGRADE = upgrades_pb2.Upgrade(
    number=3,
    old_model="old",
    new_model=types_pb2.Model(name="new", dimension=6),
    state=upgrades_pb2.UPGRADE_STATE_BACKFILLING,
    strategy=upgrades_pb2.UPGRADE_STRATEGY_GALLERY_MAP,
    calibration=upgrades_pb2.SCORE_CALIBRATION_RAW,
    min_migrated=0.5,
    min_recall=0.75,
    waits_for="cut-over",
    query_vectors=["new"],
)


def plan_with(**changes):
    return UpgradePlan(**{**{name: getattr(PLAN, name) for name in UpgradePlan.__slots__}, **changes})


class Service(upgrades_pb2_grpc.UpgradesServicer):
    """Answers every call with the same upgrade; `failure` is raised once. `uploads`: the messages of each upload."""

    def __init__(self):
        self.requests = []
        self.uploads = []
        self.failure = None
        self.upload_failure = None

    def artifacts(self):
        """What was uploaded, by digest, as the first message of each upload says."""
        for first, *_ in self.uploads:
            assert first.total_bytes == sum(len(one.data) for one in self.uploads_of(first.digest))
        return {first.digest: b"".join(one.data for one in (first, *others)) for first, *others in self.uploads}

    def uploads_of(self, digest):
        return next(messages for messages in self.uploads if messages[0].digest == digest)

    def take(self, request):
        self.requests.append(request)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure

    async def PutArtifact(self, request_iterator, context):
        messages = [await anext(request_iterator)]
        if self.upload_failure is not None:
            failure, self.upload_failure = self.upload_failure, None
            raise failure
        messages += [message async for message in request_iterator]
        self.uploads.append(messages)
        return upgrades_pb2.PutArtifactResponse(digest=messages[0].digest)

    async def Plan(self, request, context):
        self.take(request)
        return upgrades_pb2.PlanUpgradeResponse(upgrade=UPGRADE)

    async def Start(self, request, context):
        self.take(request)
        return upgrades_pb2.StartUpgradeResponse(upgrade=UPGRADE)

    async def Pause(self, request, context):
        self.take(request)
        return upgrades_pb2.PauseUpgradeResponse(upgrade=UPGRADE)

    async def Resume(self, request, context):
        self.take(request)
        return upgrades_pb2.ResumeUpgradeResponse(upgrade=UPGRADE)

    async def CutOver(self, request, context):
        self.take(request)
        return upgrades_pb2.CutOverResponse(upgrade=UPGRADE)

    async def Rollback(self, request, context):
        self.take(request)
        return upgrades_pb2.RollbackUpgradeResponse(upgrade=UPGRADE)

    async def Finish(self, request, context):
        self.take(request)
        return upgrades_pb2.FinishUpgradeResponse(upgrade=UPGRADE)

    async def Get(self, request, context):
        self.take(request)
        of = upgrades_pb2.UpgradeShardProgress
        shards = [
            of(shard=0, member="a", documents=10, with_new_vector=5, hits=8, native_hits=2, estimated_recall=0.5),
            of(shard=0, member="b", documents=10, with_new_vector=3, hits=2, native_hits=0),
            of(shard=1, member="a", documents=10, with_new_vector=7),
        ]
        return upgrades_pb2.GetUpgradeResponse(upgrade=UPGRADE, shards=shards, report=b"{}")

    async def NextDocuments(self, request, context):
        self.take(request)
        document = upgrades_pb2.DocumentToEmbed(id=columns.pack_id(7), version=2, text="a", attributes="{}")
        counted = {"remaining": 9, "shards_total": 3, "shards_answered": 2}
        return upgrades_pb2.NextDocumentsResponse(documents=[document], model="new", **counted)

    async def PutVectors(self, request, context):
        self.take(request)
        return upgrades_pb2.PutVectorsResponse(written=1, stale=2, missing=3, token=b"t", request_id=request.request_id)


@pytest.fixture
async def service():
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    made = Service()
    upgrades_pb2_grpc.add_UpgradesServicer_to_server(made, server)
    made.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield made
    await server.stop(None)


@pytest.fixture
async def client(service):
    async with AsyncClient(f"127.0.0.1:{service.port}") as client:
        yield client


async def test_a_plan_is_packed(client, service):
    """Projections and anchors as values or as bytes, words by name; what is left out is left to the server."""
    upgrade = await client.upgrade_plan("docs", PLAN, force=True)
    assert (upgrade.number, upgrade.state, upgrade.strategy) == (3, UpgradeState.BACKFILLING, Strategy.MAP)
    assert (upgrade.calibration, upgrade.waits_for, upgrade.query_vectors) == (Calibration.RAW, "cut-over", ("new",))
    assert upgrade.created_at == datetime.fromtimestamp(0, UTC)
    (request,) = service.requests
    assert (request.collection, request.force) == ("docs", True)
    sent = request.plan
    assert (sent.new_model.name, sent.new_model.dimension) == ("new", 6)
    back, pairs = artifact.pack(BACK), anchors_file.pack(PAIRS)
    assert (sent.bridge, sent.reverse, sent.gallery_map) == (artifact.digest(back), artifact.digest(back), "")
    assert sent.anchors == artifact.digest(pairs)
    assert service.artifacts() == {artifact.digest(data): data for data in (back, pairs)}
    assert len(service.uploads) == 2
    assert sent.strategy == upgrades_pb2.UPGRADE_STRATEGY_QUERY_BRIDGE
    assert sent.calibration == upgrades_pb2.SCORE_CALIBRATION_QUANTILES
    assert (sent.min_migrated, sent.min_recall) == (0, 0)


async def test_large_artifacts_travel_in_chunks(client, service):
    """Each of one MiB at most, the first with the digest and the size; what failed on the way is uploaded again."""
    large = bytes(2 * 2**20) + b"end"
    service.upload_failure = Unavailable("the upload was lost")
    await client.upgrade_plan("docs", plan_with(anchors=large))
    assert service.artifacts()[artifact.digest(large)] == large
    messages = service.uploads_of(artifact.digest(large))
    assert [len(one.data) for one in messages] == [2**20, 2**20, 3]
    assert [(one.digest, one.total_bytes) for one in messages[1:]] == [("", 0)] * 2


async def test_artifacts_beyond_the_bound_are_refused_here(client, service):
    """By their field, before anything is uploaded."""
    large = Affine(Kind.RIDGE, Metric.COSINE, np.ones((4096, 6200), np.float32), np.zeros(6200, np.float32))
    with pytest.raises(InvalidArgument, match=r"^anchors has 100663297 bytes, must have at most 100663296"):
        await client.upgrade_plan("docs", plan_with(anchors=bytes(96 * 2**20 + 1)))
    with pytest.raises(InvalidArgument, match=r"^bridge is too large: .* from 4096 to 6200 dimensions"):
        await client.upgrade_plan("docs", plan_with(bridge=large))
    assert not service.uploads


@pytest.mark.parametrize(("field", "value"), [("strategy", "magic"), ("calibration", "none"), ("min_recall", 0)])
async def test_words_that_nobody_knows_are_refused_here(client, service, field, value):
    """The wire could not carry them."""
    with pytest.raises(InvalidArgument, match=f"^{field} is"):
        await client.upgrade_plan("docs", plan_with(**{field: value}))
    assert not service.requests
    assert not service.uploads


@pytest.mark.parametrize("command", ["start", "pause", "resume", "cut_over", "rollback", "finish"])
async def test_each_command_names_its_collection(client, service, command):
    """And gives the upgrade as it then stands."""
    upgrade = await getattr(client, f"upgrade_{command}")("docs")
    assert upgrade.old_model == "old"
    assert [one.collection for one in service.requests] == ["docs"]


async def test_progress_counts_the_replica_that_is_furthest_behind(client):
    """By documents; hits are those of all replicas."""
    status = await client.upgrade_status("docs")
    assert (status.documents, status.migrated, status.migrated_by_traffic) == (20, 0.5, 0.2)
    assert [replica.estimated_recall for replica in status.replicas] == [0.5, None, None]
    assert json.loads(status.report) == {}


async def test_documents_are_pulled_and_vectors_put(client, service):
    """Numpy in, values out."""
    pulled = await client.next_documents("docs", 5, first=np.array([7, 8]), lease_s=30)
    assert (pulled.model, pulled.remaining) == ("new", 9)
    assert (pulled.shards_total, pulled.shards_answered, pulled.is_complete) == (3, 2, False)
    (document,) = pulled.documents
    assert (document.id, document.version, document.text) == (7, 2, "a")
    put = await client.put_vectors("docs", "new", [7], np.array([2]), np.ones((1, 6)), request_id="r")
    assert (put.written, put.stale, put.missing, put.token, put.request_id) == (1, 2, 3, b"t", "r")
    asked, given = service.requests
    assert (asked.limit, asked.lease_s, columns.unpack_ids(asked.first, "first")) == (5, 30, [7, 8])
    assert (given.model, list(given.versions)) == ("new", [2])
    assert np.array_equal(columns.unpack_vectors(given.block, "block", dimension=6, max_count=1), np.ones((1, 6)))


async def test_columns_of_different_lengths_are_refused_here(client, service):
    """One version and one vector per id."""
    with pytest.raises(InvalidArgument, match="^versions has 2 entries"):
        await client.put_vectors("docs", "new", [7], [1, 2], np.ones((1, 6)))
    with pytest.raises(InvalidArgument, match="^vectors has 2 entries"):
        await client.put_vectors("docs", "new", [7], [1], np.ones((2, 6)))
    assert not service.requests


async def test_refusals_are_the_errors_of_kintsugi(client, service):
    """With their reasons."""
    service.failure = FailedPrecondition("the report refuses it", reason="UPGRADE_REFUSED")
    with pytest.raises(FailedPrecondition, match="the report refuses it") as raised:
        await client.upgrade_plan("docs", PLAN)
    assert raised.value.reason == "UPGRADE_REFUSED"


def test_the_synchronous_client_has_the_same_calls():
    """Each of them, made from the asynchronous one."""
    calls = [name for name in vars(AsyncUpgrades) if not name.startswith("_")]
    assert len(calls) == 10
    assert all(callable(getattr(Client, name)) for name in calls)
