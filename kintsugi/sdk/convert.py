"""Between the SDK's values and the protos. Pure: no RPC.

Going out, only what the wire cannot carry is refused (InvalidArgument with the path of the field); every other bound
is the server's to check. Coming in, the server is trusted.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt
from google.protobuf import timestamp_pb2

from kintsugi import columns, ids
from kintsugi.ann import wire as ann_wire
from kintsugi.ann.spec import EncodingSpec, parse_name
from kintsugi.errors import InvalidArgument
from kintsugi.filters.wire import value_of_message
from kintsugi.ids import DocId
from kintsugi.sdk.options import Condition
from kintsugi.sdk.types import (
    Attributes,
    BatchResult,
    Collection,
    Coverage,
    Document,
    FloatArray,
    Hit,
    MetricName,
    Model,
    ModelCoverage,
    Outcome,
    SearchResult,
    ShardFailure,
    StoredName,
    WriteResult,
    document_id,
)
from kintsugi.v1 import collections_pb2, documents_pb2, search_pb2, types_pb2

Ids: TypeAlias = Sequence[DocId] | npt.NDArray[Any]
Word = TypeVar("Word")
Vectors: TypeAlias = npt.ArrayLike | Mapping[str, npt.ArrayLike]

_METRICS: dict[str, types_pb2.Metric.ValueType] = {
    "cosine": types_pb2.METRIC_COSINE,
    "dot": types_pb2.METRIC_DOT,
    "l2": types_pb2.METRIC_L2,
}
_METRIC_NAMES = {value: name for name, value in _METRICS.items()}
_STORED: dict[str, types_pb2.ElementType.ValueType] = {
    "f32": types_pb2.ELEMENT_TYPE_F32,
    "f16": types_pb2.ELEMENT_TYPE_F16,
}
_STORED_NAMES = {value: name for name, value in _STORED.items()}
_ACKNOWLEDGEMENTS: dict[str, types_pb2.Acknowledgement.ValueType] = {
    "logged": types_pb2.ACKNOWLEDGEMENT_LOGGED,
    "durable": types_pb2.ACKNOWLEDGEMENT_DURABLE,
    "searchable": types_pb2.ACKNOWLEDGEMENT_SEARCHABLE,
}
_CONDITIONS: dict[str, documents_pb2.WriteCondition.ValueType] = {
    "insert": documents_pb2.WRITE_CONDITION_INSERT_ONLY,
    "update": documents_pb2.WRITE_CONDITION_UPDATE_ONLY,
}
_OUTCOMES = {
    documents_pb2.WRITE_OUTCOME_APPLIED: Outcome.APPLIED,
    documents_pb2.WRITE_OUTCOME_REFUSED: Outcome.REFUSED,
    documents_pb2.WRITE_OUTCOME_NOT_WRITTEN: Outcome.NOT_WRITTEN,
    documents_pb2.WRITE_OUTCOME_UNKNOWN: Outcome.UNKNOWN,
}
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


# --- Collections ----------------------------------------------------------------------------------------------------


def metric(name: str, field: str = "metric") -> types_pb2.Metric.ValueType:
    return _word(_METRICS, name, field)


def stored_type(name: str) -> types_pb2.ElementType.ValueType:
    return _word(_STORED, name, "stored")


def acknowledgement(name: str) -> types_pb2.Acknowledgement.ValueType:
    return _word(_ACKNOWLEDGEMENTS, name, "acknowledgement")


def pack_model(model: Model) -> types_pb2.Model:
    if model.metric is None:
        declared: types_pb2.Metric.ValueType = types_pb2.METRIC_UNSPECIFIED
    else:
        declared = metric(model.metric, "model.metric")
    return types_pb2.Model(
        name=model.name,
        revision=model.revision,
        dimension=unsigned(model.dimension, "model.dimension"),
        metric=declared,
        normalised=model.normalised,
        query_prefix=model.query_prefix,
        document_prefix=model.document_prefix,
        pooling=model.pooling,
    )


def pack_encoding(encoding: str | EncodingSpec, oversampling: float | None) -> collections_pb2.Encoding:
    """An encoding by its written form or as a specification; `oversampling` wins over that of the specification."""
    if isinstance(encoding, EncodingSpec):
        spec = encoding
    elif isinstance(encoding, str):
        try:
            spec = parse_name(encoding)
        except ValueError as error:
            raise InvalidArgument("encoding", str(error).removeprefix("encoding ")) from error
    else:
        raise InvalidArgument("encoding", f"is a {type(encoding).__name__}", "must be a string such as 'i8'")
    if oversampling is not None:
        spec = msgspec.structs.replace(spec, oversampling=fraction(oversampling, "oversampling"))
    return ann_wire.to_message(spec)


def unpack_collection(message: collections_pb2.Collection) -> Collection:
    spec = message.spec
    encoding = ann_wire.from_message(spec.encoding)
    return Collection(
        name=spec.name,
        uid=message.uid,
        shards=spec.shards,
        replicas=spec.replicas,
        metric=cast("MetricName", _METRIC_NAMES[spec.metric]),
        models=tuple(unpack_model(model) for model in spec.models),
        stored=cast("StoredName", _STORED_NAMES.get(spec.stored_element_type, "f32")),
        serving_model=message.serving_model,
        created_at=unpack_time(message.created_at),
        encoding=encoding.name if encoding is not None else "unknown",
        oversampling=encoding.oversampling if encoding is not None else 0.0,
        encoding_requests=message.encoding_requests,
    )


def unpack_model(message: types_pb2.Model) -> Model:
    return Model(
        name=message.name,
        dimension=message.dimension,
        revision=message.revision,
        metric=cast("MetricName | None", _METRIC_NAMES.get(message.metric)),
        normalised=message.normalised,
        query_prefix=message.query_prefix,
        document_prefix=message.document_prefix,
        pooling=message.pooling,
    )


# --- Writes ---------------------------------------------------------------------------------------------------------


def pack_id(value: object, field: str) -> types_pb2.DocumentId:
    return columns.pack_id(ids.check(document_id(value), field))


def doc_ids(given: Ids) -> list[DocId]:
    """The ids as plain values, checked."""
    return [ids.check(document_id(value), f"ids[{i}]") for i, value in enumerate(given)]


def pack_ids(doc_ids: Ids, first: int = 0) -> list[types_pb2.DocumentId]:
    """The ids, which stand from `first` on in the call."""
    return [pack_id(doc_id, f"ids[{i}]") for i, doc_id in enumerate(doc_ids, first)]


def pack_versions(versions: Sequence[int] | npt.NDArray[np.integer[Any]] | None) -> list[int]:
    return [
        unsigned(version, f"versions[{i}]", most=2**64 - 1)
        for i, version in enumerate(versions if versions is not None else ())
    ]


@dataclass(frozen=True, slots=True)
class Items:
    """The columns of an upsert beside its vectors: entry i of each belongs to document i."""

    ids: Ids
    attributes: Sequence[Attributes | None] | None = None
    texts: Sequence[str | None] | None = None
    condition: Condition = None

    def check(self) -> None:
        """Raises InvalidArgument when a column has another length than the ids, or is no column at all."""
        if isinstance(self.ids, str | bytes):
            raise InvalidArgument("ids", f"is a {type(self.ids).__name__}", "must be a sequence of ids")
        for field, column in (("attributes", self.attributes), ("texts", self.texts)):
            if column is not None:
                same_length(field, len(column), len(self.ids))
        if isinstance(self.condition, str):
            _word(_CONDITIONS, self.condition, "condition")
        elif self.condition is not None:
            same_length("condition", len(self.condition), len(self.ids))

    def pack(self, i: int) -> documents_pb2.DocumentWrite:
        """Document i. Raises InvalidArgument when the wire cannot carry it."""
        document = documents_pb2.DocumentWrite(id=pack_id(self.ids[i], f"ids[{i}]"))
        if self.attributes is not None and (attributes := self.attributes[i]) is not None:
            document.attributes = pack_attributes(attributes, f"attributes[{i}]")
        if self.texts is not None and (text := self.texts[i]) is not None:
            document.text = pack_text(text, f"texts[{i}]")
        if isinstance(self.condition, str):
            document.condition = _CONDITIONS[self.condition]
        elif self.condition is not None:
            document.condition = documents_pb2.WRITE_CONDITION_IF_VERSION
            document.expected_version = unsigned(self.condition[i], f"condition[{i}]", most=2**64 - 1)
        return document


def pack_attributes(value: object, field: str) -> str:
    """The attributes as JSON. InvalidArgument when they are not an object, or hold NaN or something JSON has not."""
    if not isinstance(value, Mapping):
        raise InvalidArgument(field, f"is a {type(value).__name__}", "must be a mapping")
    try:
        return _encode_json(value if isinstance(value, dict) else dict(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(field, f"cannot be JSON: {str(error)[:200]}") from error


def pack_text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(field, f"is a {type(value).__name__}", "must be a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(field, "is not valid Unicode", "must be encodable as UTF-8") from error
    return value


def by_model(vectors: Vectors | None, model: str, count: int) -> dict[str, FloatArray]:
    """The vectors of each model as `count` x dimension matrices of f32 or f16."""
    if vectors is None:
        return {}
    if isinstance(vectors, Mapping):
        if model:
            raise InvalidArgument("model", f"is {model!r}", "must be left out when vectors are given by model")
        named = {name: as_matrix(matrix, f"vectors[{name!r}]") for name, matrix in vectors.items()}
    else:
        named = {model: as_matrix(vectors, "vectors")}
    for name, matrix in named.items():
        same_length(f"vectors[{name!r}]" if name else "vectors", len(matrix), count)
    return named


def query_vectors(value: Vectors, model: str) -> dict[str, FloatArray]:
    """One query by model, as vectors of f32."""
    if not isinstance(value, Mapping):
        return {model: as_vector(value, "vector")}
    _check_named(value, model, "vector")
    return {name: as_vector(vector, f"vector[{name!r}]") for name, vector in value.items()}


def query_matrices(value: Vectors, model: str) -> dict[str, FloatArray]:
    """Queries by model, as many of each."""
    if not isinstance(value, Mapping):
        return {model: as_matrix(value, "vectors")}
    _check_named(value, model, "vectors")
    named = {name: as_matrix(matrix, f"vectors[{name!r}]") for name, matrix in value.items()}
    for name, matrix in named.items():
        if len(matrix) != len(first := next(iter(named.values()))):
            raise InvalidArgument(
                f"vectors[{name!r}]", f"has {len(matrix)} rows", f"must have {len(first)}, as the others"
            )
    return named


def apart(models: Sequence[tuple[str, int]], joined: FloatArray) -> dict[str, FloatArray]:
    """What stands side by side along the last axis, by model; `models` are their names and dimensions."""
    ends = np.cumsum([dimension for _, dimension in models])[:-1]
    return dict(zip((name for name, _ in models), np.split(joined, ends, axis=-1), strict=True))


def _check_named(value: Mapping[str, object], model: str, field: str) -> None:
    if model:
        raise InvalidArgument("model", f"is {model!r}", f"must be left out when {field} is given by model")
    if not value:
        raise InvalidArgument(field, "has no entry", "must have at least 1")


def pack_model_vectors(named: Mapping[str, FloatArray]) -> list[types_pb2.ModelVectors]:
    return [
        types_pb2.ModelVectors(model=name, block=columns.pack_vectors(matrix))
        for name, matrix in named.items()
        if len(matrix)
    ]


def as_matrix(value: npt.ArrayLike, field: str) -> FloatArray:
    """The value as a matrix, f16 kept, every other number format converted to f32 (a memory map stays one)."""
    matrix = _as_floats(value, field)
    if matrix.ndim != 2:
        raise InvalidArgument(field, f"has {matrix.ndim} axes", "must have 2: items x dimension")
    return matrix


def as_vector(value: npt.ArrayLike, field: str) -> FloatArray:
    """The value as one f32 vector."""
    vector = _as_floats(value, field)
    if vector.ndim != 1:
        raise InvalidArgument(field, f"has {vector.ndim} axes", "must have 1: dimension")
    return vector.astype("<f4", copy=False)


def _as_floats(value: npt.ArrayLike, field: str) -> FloatArray:
    try:
        array = np.asanyarray(value)
        if array.dtype.kind not in "fiub":
            raise InvalidArgument(field, f"has elements of type {array.dtype}", "must be numbers")
        if array.dtype != np.float16:
            array = array.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(field, f"is not an array of numbers: {error}") from error
    return cast("FloatArray", array)


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


# --- Reads ----------------------------------------------------------------------------------------------------------


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


# --- Bounds of the wire ---------------------------------------------------------------------------------------------


def same_length(field: str, length: int, count: int) -> None:
    if length != count:
        raise InvalidArgument(field, f"has {length} entries", f"must have {count}, one per id")


def unsigned(value: object, field: str, *, most: int = 2**32 - 1) -> int:
    """A plain int that the wire can carry; the server checks the tighter bound."""
    if isinstance(value, np.integer):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(field, f"is a {type(value).__name__}", "must be an integer")
    if not 0 <= value <= most:
        raise InvalidArgument(field, f"is {value}", f"must be 0 to {most}")
    return value


def bounded(value: object, field: str, most: int) -> int:
    """An integer from 1: 0 would mean "not set" on the wire."""
    checked = unsigned(value, field, most=2**64 - 1)
    if not 1 <= checked <= most:
        raise InvalidArgument(field, f"is {checked}", f"must be 1 to {most}")
    return checked


def fraction(value: object, field: str) -> float:
    """A number that is not 0, which would mean "not set" on the wire."""
    checked = number(value, field)
    if checked == 0:
        raise InvalidArgument(field, "is 0", "must be above 0")
    return checked


def number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidArgument(field, f"is a {type(value).__name__}", "must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidArgument(field, "is beyond binary64", "must be finite") from error


def _word(words: Mapping[str, Word], name: str, field: str) -> Word:
    try:
        return words[name]
    except (KeyError, TypeError) as error:
        raise InvalidArgument(field, f"is {name!r}", f"must be {', '.join(sorted(words))}") from error
