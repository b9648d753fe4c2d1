"""Collections and documents between the SDK's values and the protos. Pure: no RPC."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt

from kintsugi import columns, ids
from kintsugi.ann import wire as ann_wire
from kintsugi.ann.spec import EncodingSpec, parse_name
from kintsugi.errors import InvalidArgument
from kintsugi.ids import DocId
from kintsugi.sdk.answers import unpack_time
from kintsugi.sdk.bounds import fraction, same_length, unsigned
from kintsugi.sdk.options import Condition
from kintsugi.sdk.types import (
    Attributes,
    Collection,
    MetricName,
    Model,
    StoredName,
    document_id,
)
from kintsugi.v1 import collections_pb2, documents_pb2, types_pb2

Ids: TypeAlias = Sequence[DocId] | npt.NDArray[Any]
Word = TypeVar("Word")

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


def _word(words: Mapping[str, Word], name: str, field: str) -> Word:
    try:
        return words[name]
    except (KeyError, TypeError) as error:
        raise InvalidArgument(field, f"is {name!r}", f"must be {', '.join(sorted(words))}") from error
