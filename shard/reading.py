"""The reads of the shard contract: from request messages to the engine and back."""

import time
from collections.abc import Mapping

import numpy as np

from kintsugi import ids
from kintsugi.columns import pack_encoded, pack_id, unpack_encoded
from kintsugi.errors import InvalidArgument, StalePlan
from kintsugi.internal.v1 import shard_pb2
from kintsugi.registry.records import Collection, View
from kintsugi.v1 import cluster_pb2, types_pb2
from shard.engine import Engine
from shard.reader import Fields, StoredDocument
from shard.replica import Replica
from shard.search_call import SearchCall
from shard.search_times import tell_span


def check_model(engine: Engine, model: str, view: View | None) -> None:
    """StalePlan when this replica does not serve the model that the coordinator planned with."""
    if model != engine.model.name:
        revision = view.snapshot.revision if view else 0
        raise StalePlan(f"replica serves model {engine.model.name!r}, the plan is for {model!r}", revision=revision)


async def search(
    engine: Engine, request: shard_pb2.ShardSearchRequest, remaining_s: float
) -> shard_pb2.ShardSearchResponse:
    queries = np.frombuffer(request.queries, dtype="<f4")
    if not request.count or queries.size != request.count * engine.model.dimension:
        expected = request.count * engine.model.dimension * 4
        raise InvalidArgument("queries", f"has {len(request.queries)} bytes", f"must have {expected}")
    called = time.perf_counter()
    hits = await engine.searcher.search(
        SearchCall(
            queries.reshape(request.count, engine.model.dimension),
            request.k,
            exact=request.exact,
            oversampling=request.oversampling or None,
            deadline=time.monotonic() + remaining_s,
            fields=fields_of(request.fields),
        )
    )
    tell_span(called, hits.times)
    return shard_pb2.ShardSearchResponse(
        counts=hits.counts,
        ids=pack_encoded(hits.ids),
        scores=hits.scores.astype("<f8", copy=False).tobytes(),
        versions=hits.versions.astype("<u8", copy=False).tobytes(),
        attributes=hits.attributes,
        texts=hits.texts,
        documents=hits.documents,
        documents_with_vector=hits.documents_with_vector,
        index_version=hits.index_version,
    )


def get(
    engine: Engine, collection: Collection, request: shard_pb2.GetDocumentsRequest
) -> shard_pb2.GetDocumentsResponse:
    encoded = unpack_encoded(request.ids, "ids")
    found = engine.storage.get(encoded, fields_of(request.fields))
    return shard_pb2.GetDocumentsResponse(documents=[_document(collection, one) for one in found if one is not None])


def scroll(
    engine: Engine, collection: Collection, request: shard_pb2.ScrollDocumentsRequest
) -> shard_pb2.ScrollDocumentsResponse:
    page = engine.storage.scroll(request.after, request.limit, fields_of(request.fields))
    return shard_pb2.ScrollDocumentsResponse(
        documents=[_document(collection, one) for one in page.documents], more=page.more
    )


def fields_of(fields: types_pb2.DocumentFields) -> Fields:
    return Fields(attributes=fields.attributes, text=fields.text, vectors=fields.vectors)


def _document(collection: Collection, stored: StoredDocument) -> types_pb2.Document:
    document = types_pb2.Document(
        id=pack_id(ids.decode(stored.id)),
        version=stored.version,
        attributes=stored.attributes,
        text=stored.text,
        vectors=_vectors(collection, stored),
    )
    document.written_at.FromMicroseconds(stored.written_at_us)
    return document


def _vectors(collection: Collection, stored: StoredDocument) -> list[types_pb2.ModelVectors]:
    element = types_pb2.ELEMENT_TYPE_F32 if collection.stored == "f32" else types_pb2.ELEMENT_TYPE_F16
    return [
        types_pb2.ModelVectors(
            model=model.name,
            block=types_pb2.VectorBlock(
                data=stored.vectors[model.number], count=1, dimension=model.dimension, element_type=element
            ),
        )
        for model in collection.models
        if model.number in stored.vectors
    ]


def status(replica: Replica, waiting: Mapping[tuple[str, int], str]) -> shard_pb2.HostedReplica:
    """How a replica does, as far as this server knows. `waiting`: why recoveries of logs failed."""
    told = cluster_pb2.ReplicaStatus(reachable=True, phase=replica.phase.value, message=replica.message)
    if replica.is_open:
        engine = replica.engine
        told.durable_seq = engine.position.seq
        told.searchable_seq = engine.searchable_seq
        told.documents = engine.documents
        told.disk_bytes = engine.storage.disk_bytes
        if (serving := engine.indexer.serving) is not None:
            told.index_versions.add(
                version=serving.number,
                model=engine.model.name,
                encoding=serving.encoding,
                state="serving",
                vectors=len(serving.index),
                checkpoint_seq=engine.indexer.checkpoint_seq,
            )
    recovery = waiting.get((replica.ref.collection_uid, replica.ref.shard), "")
    return shard_pb2.HostedReplica(replica=replica.ref, status=told, recovery=recovery)
