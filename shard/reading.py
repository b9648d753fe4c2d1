"""The reads of the shard contract: from request messages to the engine and back."""

import time
from collections.abc import Mapping

import numpy as np

from kintsugi import ids, limits
from kintsugi.ann.elements import F32Matrix
from kintsugi.columns import pack_encoded, pack_id, unpack_encoded
from kintsugi.errors import InvalidArgument, StalePlan
from kintsugi.filters.matching import matches
from kintsugi.filters.tree import value_of
from kintsugi.filters.wire import from_message, value_message, value_of_message
from kintsugi.internal.v1 import shard_pb2
from kintsugi.registry.records import Collection, View
from kintsugi.v1 import cluster_pb2, types_pb2
from shard.attributes.terms import decode_attributes
from shard.engine import Engine
from shard.grouping import group_of
from shard.index_status import index_versions, settled_requests, waits_for
from shard.model_index import ModelIndex
from shard.reader import Fields, StoredDocument
from shard.replica import Replica
from shard.search_call import Grouping, SearchCall, ShardHits
from shard.search_times import tell_span
from shard.storage_faults import StorageCorrupt
from shard.upgrade_status import serving_models, upgrade_progress


def index_of(engine: Engine, model: str, view: View | None) -> ModelIndex:
    """StalePlan when this replica does not serve the model that the coordinator planned with."""
    index = engine.models.get(model)
    if index is None:
        revision = view.snapshot.revision if view else 0
        served = " and ".join(map(repr, engine.models))
        raise StalePlan(f"replica serves model {served}, the plan is for {model!r}", revision=revision)
    return index


async def search(
    engine: Engine, index: ModelIndex, request: shard_pb2.ShardSearchRequest, remaining_s: float
) -> shard_pb2.ShardSearchResponse:
    queries = np.frombuffer(request.queries, dtype="<f4")
    if not request.count or queries.size != request.count * index.model.dimension:
        expected = request.count * index.model.dimension * 4
        raise InvalidArgument("queries", f"has {len(request.queries)} bytes", f"must have {expected}")
    called = time.perf_counter()
    engine.pace.searched()
    hits = await index.searcher.search(
        SearchCall(
            queries.reshape(request.count, index.model.dimension),
            request.k,
            exact=request.exact,
            oversampling=request.oversampling or None,
            deadline=time.monotonic() + remaining_s,
            fields=fields_of(request.fields),
            filter=from_message(request.filter) if request.HasField("filter") else None,
            min_score=request.min_score if request.HasField("min_score") else None,
            group=_grouping(request) if request.HasField("group_by") else None,
            other_queries=_other_queries(request),
            tell_unmigrated=request.tell_unmigrated,
            ef_search=request.ef_search or None,
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
        groups=map(value_message, hits.groups),
        projected=hits.projected.tobytes() if hits.projected.any() else b"",
        projected_model=hits.other_model if hits.projected.any() else "",
        unmigrated=pack_encoded(hits.unmigrated) if request.tell_unmigrated else None,
        other_models=_other_models(hits),
    )


def _other_queries(request: shard_pb2.ShardSearchRequest) -> F32Matrix | None:
    if not request.other_queries:
        return None
    elements = np.frombuffer(request.other_queries, dtype="<f4")
    if elements.size % request.count:
        problem = f"has {len(request.other_queries)} bytes"
        raise InvalidArgument("other_queries", problem, f"must have as many for each of {request.count} queries")
    return elements.reshape(request.count, -1)


def _other_models(hits: ShardHits) -> list[types_pb2.ModelCoverage]:
    if not hits.other_model:
        return []
    return [types_pb2.ModelCoverage(model=hits.other_model, documents=hits.documents_with_other)]


def _grouping(request: shard_pb2.ShardSearchRequest) -> Grouping:
    groups = (group_of(value_of(value_of_message(value))) for value in request.only_groups)
    only = tuple(group for group in groups if group is not None)
    return Grouping(request.group_by.attribute, request.group_by.size or limits.DEFAULT_GROUP_SIZE, only)


def get(
    engine: Engine, collection: Collection, request: shard_pb2.GetDocumentsRequest
) -> shard_pb2.GetDocumentsResponse:
    encoded = unpack_encoded(request.ids, "ids")
    found = engine.storage.get(encoded, fields_of(request.fields))
    return shard_pb2.GetDocumentsResponse(documents=[_document(collection, one) for one in found if one is not None])


def count(engine: Engine, request: shard_pb2.CountDocumentsRequest) -> shard_pb2.CountDocumentsResponse:
    if not request.HasField("filter"):
        return shard_pb2.CountDocumentsResponse(count=engine.documents)
    return shard_pb2.CountDocumentsResponse(count=len(engine.storage.match(from_message(request.filter))))


def match(engine: Engine, request: shard_pb2.MatchDocumentsRequest) -> shard_pb2.MatchDocumentsResponse:
    """Filter and versions in one transaction: each document fulfils the filter in the version that is told."""
    condition = from_message(request.filter)
    with engine.storage.reading() as reader:
        rows = reader.match(condition).rows()
        behind = rows[np.searchsorted(rows, np.uint64(request.after_row), side="right") :]
        page = behind[: request.limit]
        hits = reader.hits(page, Fields(attributes=True))
    # Documents are deleted on this word, so it does not rest on an index alone.
    fulfil = [matches(condition, decode_attributes(attributes.encode())) for attributes in hits.attributes]
    if len(fulfil) < len(page) or not all(fulfil):
        raise StorageCorrupt("the index of attributes names a document that does not fulfil the filter")
    return shard_pb2.MatchDocumentsResponse(
        ids=pack_encoded(hits.ids),
        versions=hits.versions.astype("<u8", copy=False).tobytes(),
        last_row=int(page[-1]) if len(page) else request.after_row,
        more=len(behind) > len(page),
    )


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
        told.message = told.message or waits_for(engine)
        # Before what serves: who reads that a request is settled must see what it came to.
        told.settled_encoding_requests = settled_requests(engine)
        told.index_versions.extend(index_versions(engine))
    recovery = waiting.get((replica.ref.collection_uid, replica.ref.shard), "")
    return shard_pb2.HostedReplica(
        replica=replica.ref,
        status=told,
        recovery=recovery,
        upgrade=upgrade_progress(replica.engine) if replica.is_open else None,
        serving_models=serving_models(replica.engine) if replica.is_open else (),
    )
