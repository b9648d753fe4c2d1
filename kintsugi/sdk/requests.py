"""Builds the requests of the SDK's calls from their arguments, checking what the client can know. Pure."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kintsugi import limits
from kintsugi.errors import InvalidArgument
from kintsugi.sdk import bounds, convert
from kintsugi.sdk.convert import Ids, Items
from kintsugi.sdk.filtering import FilterLike, pack_filter
from kintsugi.sdk.options import (
    CollectionOptions,
    CountOptions,
    DeleteByFilterOptions,
    PutVectorsOptions,
    SearchOptions,
    UpdateOptions,
    WriteOptions,
)
from kintsugi.sdk.types import MetricName, Model
from kintsugi.v1 import collections_pb2, documents_pb2, search_pb2, types_pb2

Versions: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]


def create(
    name: str, model: Model, metric: MetricName, options: CollectionOptions
) -> collections_pb2.CreateCollectionRequest:
    shards, replicas = options.get("shards"), options.get("replicas")
    spec = collections_pb2.CollectionSpec(
        name=name,
        shards=0 if shards is None else bounds.bounded(shards, "shards", limits.MAX_SHARDS),
        replicas=0 if replicas is None else bounds.bounded(replicas, "replicas", limits.MAX_REPLICAS),
        metric=convert.metric(metric),
        models=[convert.pack_model(model)],
        stored_element_type=convert.stored_type(options.get("stored", "f32")),
        encoding=convert.pack_encoding(options.get("encoding", "auto"), options.get("oversampling")),
    )
    return collections_pb2.CreateCollectionRequest(spec=spec)


def upsert(collection: str, items: Items, options: UpdateOptions) -> documents_pb2.UpsertRequest:
    """Without vectors."""
    return documents_pb2.UpsertRequest(
        collection=collection,
        documents=[items.pack(i) for i in range(len(items.ids))],
        acknowledgement=convert.acknowledgement(options.get("acknowledgement", "durable")),
        durable_replicas=durable_replicas(options),
        request_id=request_id(options),
    )


def delete(collection: str, ids: Ids, versions: Versions | None, options: WriteOptions) -> documents_pb2.DeleteRequest:
    Items(ids, condition=versions).check()
    return documents_pb2.DeleteRequest(
        collection=collection,
        ids=convert.pack_ids(ids),
        expected_versions=convert.pack_versions(versions),
        acknowledgement=convert.acknowledgement(options.get("acknowledgement", "durable")),
        durable_replicas=durable_replicas(options),
        request_id=request_id(options),
    )


def delete_by_filter(
    collection: str, condition: FilterLike, options: DeleteByFilterOptions
) -> documents_pb2.DeleteByFilterRequest:
    """Without a limit."""
    return documents_pb2.DeleteByFilterRequest(
        collection=collection,
        filter=pack_filter(condition),
        acknowledgement=convert.acknowledgement(options.get("acknowledgement", "durable")),
        durable_replicas=durable_replicas(options),
        at_least=options.get("at_least", b""),
    )


def count(collection: str, options: CountOptions) -> documents_pb2.CountRequest:
    condition = options.get("filter")
    return documents_pb2.CountRequest(
        collection=collection,
        at_least=options.get("at_least", b""),
        filter=None if condition is None else pack_filter(condition),
    )


def durable_replicas(options: WriteOptions | DeleteByFilterOptions) -> int:
    return bounds.bounded(options.get("durable_replicas", 1), "durable_replicas", limits.MAX_REPLICAS)


def request_id(options: WriteOptions | PutVectorsOptions) -> str:
    return options.get("request_id", "") or uuid.uuid4().hex


def fields(options: Mapping[str, object]) -> types_pb2.DocumentFields:
    return types_pb2.DocumentFields(
        attributes=bool(options.get("attributes", False)),
        text=bool(options.get("text", False)),
        vectors=bool(options.get("vectors", False)),
    )


def search_options(k: int, options: SearchOptions) -> search_pb2.SearchOptions:
    packed = search_pb2.SearchOptions(
        k=bounds.bounded(k, "k", limits.MAX_K),
        exact=options.get("exact", False),
        at_least=options.get("at_least", b""),
        fields=fields(options),
        offset=bounds.unsigned(options.get("offset", 0), "offset"),
        group_by=_group_by(options),
        tell_unmigrated=options.get("tell_unmigrated", False),
    )
    if (condition := options.get("filter")) is not None:
        packed.filter.CopyFrom(pack_filter(condition))
    if (min_score := options.get("min_score")) is not None:
        packed.min_score = bounds.number(min_score, "min_score")
    if (oversampling := options.get("oversampling")) is not None:
        packed.oversampling = bounds.fraction(oversampling, "oversampling")
    if (ef_search := options.get("ef_search")) is not None:
        packed.ef_search = bounds.bounded(ef_search, "ef_search", limits.MAX_EF_SEARCH)
    if (min_coverage := options.get("min_coverage")) is not None:
        packed.min_coverage = bounds.fraction(min_coverage, "min_coverage")
    return packed


def _group_by(options: SearchOptions) -> search_pb2.GroupBy | None:
    attribute, size = options.get("group_by"), options.get("group_size")
    if attribute is None:
        if size is not None:
            raise InvalidArgument("group_size", f"is {size}", "must be left out without group_by")
        return None
    checked = 1 if size is None else bounds.bounded(size, "group_size", limits.MAX_GROUP_SIZE)
    return search_pb2.GroupBy(attribute=convert.pack_text(attribute, "group_by"), size=checked)
