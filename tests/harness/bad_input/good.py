"""A good request for each public rpc: each bad one differs from it in one thing."""

import struct
from enum import StrEnum

from google.protobuf.message import Message

from harness.bad_input import artifacts
from kintsugi.v1 import (
    cluster_pb2,
    collections_pb2,
    documents_pb2,
    filters_pb2,
    search_pb2,
    types_pb2,
    upgrades_pb2,
)

DIMENSION = 4
GOOD = "good"
OTHER = "other"
# Of the documents 0 and 1, as they are first written.
VERSIONS = (1, 1)


class UpgradeAs(StrEnum):
    """Collections named after the state of their upgrade from model m to model n."""

    PLANNED = "planned"
    BACKFILLING = "backfilling"
    PAUSED = "paused"
    # Before it was started.
    GIVEN_UP = "given-up"
    ROLLED_BACK = "rolled-back"
    FINISHED = "finished"


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def block(count: int = 1) -> types_pb2.VectorBlock:
    return types_pb2.VectorBlock(data=floats(1, 2, 3, 4) * count, count=count, dimension=DIMENSION)


def model(name: str = "m") -> types_pb2.Model:
    return types_pb2.Model(name=name, dimension=DIMENSION)


def spec(name: str) -> collections_pb2.CollectionSpec:
    return collections_pb2.CollectionSpec(
        name=name, shards=2, replicas=1, metric=types_pb2.METRIC_COSINE, models=[model()]
    )


def integer(number: int) -> types_pb2.DocumentId:
    return types_pb2.DocumentId(integer=number)


def text(value: str) -> types_pb2.DocumentId:
    return types_pb2.DocumentId(text=value)


def documents(first: int, count: int) -> list[documents_pb2.DocumentWrite]:
    return [documents_pb2.DocumentWrite(id=integer(first + n), attributes="{}") for n in range(count)]


def upsert(first: int = 1000, count: int = 2, collection: str = GOOD) -> documents_pb2.UpsertRequest:
    """New documents: what is written of a bad request shows in the count."""
    return documents_pb2.UpsertRequest(
        collection=collection,
        documents=documents(first, count),
        vectors=[types_pb2.ModelVectors(model="m", block=block(count))],
    )


def plan() -> upgrades_pb2.UpgradePlan:
    """Whatever is measured at the cut-over is good enough for it."""
    return upgrades_pb2.UpgradePlan(
        new_model=model("n"),
        strategy=upgrades_pb2.UPGRADE_STRATEGY_QUERY_BRIDGE,
        calibration=upgrades_pb2.SCORE_CALIBRATION_QUANTILES,
        bridge=artifacts.named(artifacts.PROJECTION),
        reverse=artifacts.named(artifacts.PROJECTION),
        anchors=artifacts.named(artifacts.ANCHORS),
        report=b'{"reasons": ["it is worse"]}',
        min_recall=0.01,
        uncertainty=artifacts.named(artifacts.PREDICTOR),
    )


def upgrade_request_for(method: str) -> Message:
    """For a collection whose upgrade goes on; of a plan, for one that was not started."""
    name = UpgradeAs.BACKFILLING
    good: dict[str, Message] = {
        "PutArtifact": upgrades_pb2.PutArtifactRequest(
            digest=artifacts.named(artifacts.PROJECTION),
            total_bytes=len(artifacts.PROJECTION),
            data=artifacts.PROJECTION,
        ),
        "Plan": upgrades_pb2.PlanUpgradeRequest(collection=UpgradeAs.PLANNED, plan=plan()),
        "Start": upgrades_pb2.StartUpgradeRequest(collection=name),
        "Get": upgrades_pb2.GetUpgradeRequest(collection=name),
        "Pause": upgrades_pb2.PauseUpgradeRequest(collection=name),
        "Resume": upgrades_pb2.ResumeUpgradeRequest(collection=name),
        "CutOver": upgrades_pb2.CutOverRequest(collection=name),
        "Rollback": upgrades_pb2.RollbackUpgradeRequest(collection=name),
        "Finish": upgrades_pb2.FinishUpgradeRequest(collection=name),
        "NextDocuments": upgrades_pb2.NextDocumentsRequest(
            collection=name,
            limit=1,
            first=types_pb2.IdColumn(integers=bytes(8), texts=["a"], kinds=b"\x00\x01"),
        ),
        "PutVectors": upgrades_pb2.PutVectorsRequest(
            collection=name, model="n", ids=[integer(0), integer(1)], versions=VERSIONS, block=block(2)
        ),
    }
    return good[method]


def request_for(rpc: str) -> Message:
    service, method = rpc.split(".")
    if service == "Upgrades":
        return upgrade_request_for(method)
    ids = [integer(0), text("a")]
    nothing = filters_pb2.Filter(exists=filters_pb2.Exists(attribute="nothing has this"))
    vector = search_pb2.QueryVector(data=floats(1, 2, 3, 4))
    good: dict[str, Message] = {
        "Collections.Create": collections_pb2.CreateCollectionRequest(spec=spec("new")),
        "Collections.Get": collections_pb2.GetCollectionRequest(name=GOOD),
        "Collections.List": collections_pb2.ListCollectionsRequest(),
        "Collections.Delete": collections_pb2.DeleteCollectionRequest(name=GOOD),
        "Collections.Encode": collections_pb2.EncodeCollectionRequest(
            name=GOOD, encoding=collections_pb2.Encoding(kind=collections_pb2.ENCODING_KIND_BF16)
        ),
        "Documents.Upsert": upsert(),
        "Documents.BulkUpsert": documents_pb2.BulkUpsertRequest(chunk=0, upsert=upsert()),
        "Documents.Delete": documents_pb2.DeleteRequest(collection=GOOD, ids=ids),
        "Documents.DeleteByFilter": documents_pb2.DeleteByFilterRequest(collection=GOOD, filter=nothing),
        "Documents.Get": documents_pb2.GetRequest(collection=GOOD, ids=ids),
        "Documents.Count": documents_pb2.CountRequest(collection=GOOD),
        "Documents.Scroll": documents_pb2.ScrollRequest(collection=GOOD),
        "Search.Search": search_pb2.SearchRequest(collection=GOOD, vectors=[vector]),
        "Search.SearchBatch": search_pb2.SearchBatchRequest(
            collection=GOOD, vectors=[types_pb2.ModelVectors(block=block(2))]
        ),
        "Search.SearchStream": search_pb2.StreamedSearch(
            number=1, search=search_pb2.SearchRequest(collection=GOOD, vectors=[vector])
        ),
        "Cluster.GetStatus": cluster_pb2.GetStatusRequest(),
        "Cluster.Verify": cluster_pb2.VerifyRequest(collection=GOOD, queries=1),
        "Cluster.AcceptLoss": cluster_pb2.AcceptLossRequest(collection=GOOD, shard=0),
    }
    return good[rpc]
