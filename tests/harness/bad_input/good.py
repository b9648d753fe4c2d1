"""A good request for each public rpc: each bad one differs from it in one thing."""

import struct

from google.protobuf.message import Message

from kintsugi.v1 import cluster_pb2, collections_pb2, documents_pb2, filters_pb2, search_pb2, types_pb2

DIMENSION = 4
GOOD = "good"
OTHER = "other"


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


def request_for(rpc: str) -> Message:
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
        "Cluster.GetStatus": cluster_pb2.GetStatusRequest(),
        "Cluster.Verify": cluster_pb2.VerifyRequest(collection=GOOD, queries=1),
        "Cluster.AcceptLoss": cluster_pb2.AcceptLossRequest(collection=GOOD, shard=0),
    }
    return good[rpc]
