"""Answers of the cluster as the SDK's values. Pure; the server is trusted."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from google.protobuf import timestamp_pb2

from kintsugi import columns
from kintsugi.filters.wire import value_of_message
from kintsugi.ids import DocId
from kintsugi.sdk.types import (
    Attributes,
    BatchResult,
    Coverage,
    Document,
    FloatArray,
    Hit,
    ModelCoverage,
    Outcome,
    SearchResult,
    ShardFailure,
    WriteResult,
)
from kintsugi.v1 import documents_pb2, search_pb2, types_pb2

_OUTCOMES = {
    documents_pb2.WRITE_OUTCOME_APPLIED: Outcome.APPLIED,
    documents_pb2.WRITE_OUTCOME_REFUSED: Outcome.REFUSED,
    documents_pb2.WRITE_OUTCOME_NOT_WRITTEN: Outcome.NOT_WRITTEN,
    documents_pb2.WRITE_OUTCOME_UNKNOWN: Outcome.UNKNOWN,
}


def unpack_write(response: documents_pb2.WriteResponse) -> WriteResult:
    results = response.results
    return WriteResult(
        outcomes=outcomes(response),
        versions=np.fromiter((result.version for result in results), np.uint64, len(results)),
        found=np.fromiter((result.found for result in results), np.bool_, len(results)),
        messages=tuple(result.message for result in results),
        token=response.token,
        request_id=response.request_id,
    )


def outcomes(response: documents_pb2.WriteResponse) -> tuple[Outcome, ...]:
    return tuple(_OUTCOMES.get(result.outcome, Outcome.UNKNOWN) for result in response.results)


def is_settled(response: documents_pb2.WriteResponse) -> bool:
    """Whether every item is applied or refused for good, so that repeating the request changes nothing."""
    settled = (documents_pb2.WRITE_OUTCOME_APPLIED, documents_pb2.WRITE_OUTCOME_REFUSED)
    return all(result.outcome in settled for result in response.results)


def unpack_id(message: types_pb2.DocumentId) -> DocId:
    return message.integer if message.WhichOneof("kind") == "integer" else message.text


def unpack_document(message: types_pb2.Document, fields: types_pb2.DocumentFields) -> Document:
    vectors = None
    if fields.vectors:
        vectors = {one.model: _unpack_vector(one.block) for one in message.vectors}
    return Document(
        id=unpack_id(message.id),
        version=message.version,
        written_at=unpack_time(message.written_at),
        attributes=_attributes(message.attributes) if fields.attributes else None,
        text=message.text if fields.text else None,
        vectors=vectors,
    )


def _unpack_vector(block: types_pb2.VectorBlock) -> FloatArray:
    half = block.element_type == types_pb2.ELEMENT_TYPE_F16
    return np.frombuffer(bytearray(block.data), dtype="<f2" if half else "<f4")


def unpack_search(response: search_pb2.SearchResponse, fields: types_pb2.DocumentFields) -> SearchResult:
    return SearchResult(
        hits=tuple(
            Hit(
                id=unpack_id(hit.id),
                score=hit.score,
                version=hit.version,
                model=hit.model,
                attributes=_attributes(hit.attributes) if fields.attributes else None,
                text=hit.text if fields.text else None,
                group=value_of_message(hit.group) if hit.HasField("group") else None,
                projected=hit.projected,
            )
            for hit in response.hits
        ),
        coverage=unpack_coverage(response.coverage),
        unmigrated=_unmigrated(response),
    )


def _unmigrated(response: search_pb2.SearchResponse | search_pb2.SearchBatchResponse) -> tuple[DocId, ...]:
    return tuple(columns.unpack_ids(response.unmigrated, "unmigrated"))


def unpack_batch(
    response: search_pb2.SearchBatchResponse, fields: types_pb2.DocumentFields, *, grouped: bool = False
) -> BatchResult:
    counts = np.asarray(response.counts, dtype=np.int64)
    flat = columns.unpack_ids(response.ids, "ids")
    all_integers = not response.ids.texts
    flat_ids = np.empty(len(flat), dtype=np.uint64 if all_integers else object)
    flat_ids[:] = flat
    return BatchResult(
        counts=counts,
        ids=_padded(flat_ids, counts, 0 if all_integers else None),
        scores=_padded(columns.unpack_f64(response.scores, "scores"), counts, np.nan),
        versions=_padded(columns.unpack_u64(response.versions, "versions"), counts, 0),
        model=response.model,
        coverage=unpack_coverage(response.coverage),
        attributes=_split(map(_attributes, response.attributes), counts) if fields.attributes else None,
        texts=_split(response.texts, counts) if fields.text else None,
        groups=_split(map(value_of_message, response.groups), counts) if grouped else None,
        projected=_projected(response, counts),
        projected_model=response.projected_model,
        unmigrated=_unmigrated(response),
    )


def _projected(response: search_pb2.SearchBatchResponse, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    flags = np.frombuffer(response.projected, np.uint8) == 1
    if not len(flags):
        flags = np.zeros(int(counts.sum()), np.bool_)
    return _padded(flags, counts, padding=False)


def _padded(flat: npt.NDArray[Any], counts: npt.NDArray[np.int64], padding: object) -> npt.NDArray[Any]:
    """Lays a flat column out as one row per query."""
    width = int(counts.max(initial=0))
    rows = np.full((len(counts), width), padding, dtype=flat.dtype)
    rows[np.arange(width) < counts[:, None]] = flat
    return rows


def _split(flat: Iterable[Any], counts: npt.NDArray[np.int64]) -> tuple[tuple[Any, ...], ...]:
    entries = iter(flat)
    return tuple(tuple(next(entries) for _ in range(count)) for count in counts)


def unpack_coverage(message: types_pb2.Coverage) -> Coverage:
    return Coverage(
        shards_total=message.shards_total,
        shards_answered=message.shards_answered,
        documents_total=message.documents_total,
        documents_covered=message.documents_covered,
        models=tuple(ModelCoverage(model.model, model.documents) for model in message.models),
        failures=tuple(ShardFailure(failure.shard, failure.code, failure.message) for failure in message.failures),
    )


def _attributes(encoded: str) -> Attributes:
    return cast("Attributes", json.loads(encoded)) if encoded else {}


def unpack_time(message: timestamp_pb2.Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)
