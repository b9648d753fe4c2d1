"""Collection specifications between the public protos and the registry: checked on the way in. Pure."""

import re

import msgspec

from coordinator import encodings
from kintsugi import limits
from kintsugi.ann import wire
from kintsugi.errors import InvalidArgument
from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.records import Collection, Defaults, Model
from kintsugi.v1 import collections_pb2, types_pb2

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

_METRICS = {
    types_pb2.METRIC_COSINE: Metric.COSINE,
    types_pb2.METRIC_DOT: Metric.DOT,
    types_pb2.METRIC_L2: Metric.L2,
}
_STORED = {
    types_pb2.ELEMENT_TYPE_UNSPECIFIED: StoredType.F32,
    types_pb2.ELEMENT_TYPE_F32: StoredType.F32,
    types_pb2.ELEMENT_TYPE_F16: StoredType.F16,
}
_METRIC_NUMBERS = {metric: number for number, metric in _METRICS.items()}
_STORED_NUMBERS = {StoredType.F32: types_pb2.ELEMENT_TYPE_F32, StoredType.F16: types_pb2.ELEMENT_TYPE_F16}


def parse(spec: collections_pb2.CollectionSpec, defaults: Defaults, *, uid: str, created_at_us: int) -> Collection:
    """The collection that a specification asks for, with the defaults filled in."""
    check_name(spec.name, "spec.name")
    shards = _bounded(spec.shards or defaults.shards, limits.MAX_SHARDS, "spec.shards")
    replicas = _bounded(spec.replicas or defaults.replicas, limits.MAX_REPLICAS, "spec.replicas")
    metric = _METRICS.get(spec.metric)
    if metric is None:
        raise InvalidArgument("spec.metric", f"is {spec.metric}", "must be COSINE, DOT or L2")
    stored = _STORED.get(spec.stored_element_type)
    if stored is None:
        raise InvalidArgument("spec.stored_element_type", f"is {spec.stored_element_type}", "must be F32 or F16")
    if len(spec.models) != 1:
        raise InvalidArgument("spec.models", f"has {len(spec.models)} entries", "must have exactly one")
    model = parse_model(spec.models[0], metric, "spec.models[0]", number=1)
    return Collection(
        uid=uid,
        name=spec.name,
        shards=shards,
        replicas=replicas,
        metric=metric,
        stored=stored,
        models=(model,),
        serving_model=model.name,
        created_at_us=created_at_us,
        encoding=encodings.parse(spec.encoding, "spec.encoding", model.dimension, metric),
    )


def is_same(created: Collection, wanted: Collection) -> bool:
    """Whether a collection is what a specification asks for. Its encoding counts until it is changed for the first time, and
    each of its models may be the one that it was created with: a script that creates its collections may be repeated after
    they were encoded anew or upgraded."""
    as_created = created.encoding_requests > 0 or created.encoding == wanted.encoding
    models = [msgspec.structs.replace(model, number=1) for model in created.models]
    return as_created and wanted.models[0] in models and _specification(created) == _specification(wanted)


def check_name(name: str, field: str) -> str:
    return _name(name, field, _NAME, "a-z, 0-9, '_' and '-'")


def to_message(collection: Collection) -> collections_pb2.Collection:
    message = collections_pb2.Collection(
        spec=collections_pb2.CollectionSpec(
            name=collection.name,
            shards=collection.shards,
            replicas=collection.replicas,
            metric=_METRIC_NUMBERS[collection.metric],
            models=[model_message(model) for model in collection.models],
            stored_element_type=_STORED_NUMBERS[collection.stored],
            encoding=None if collection.encoding.is_automatic else wire.to_message(collection.encoding),
        ),
        uid=collection.uid,
        serving_model=collection.serving_model,
        encoding_requests=collection.encoding_requests,
    )
    message.created_at.FromMicroseconds(collection.created_at_us)
    return message


def parse_model(model: types_pb2.Model, metric: Metric, field: str, *, number: int) -> Model:
    """The model that `field` of a request declares for a collection of this metric."""
    metric_number = _METRIC_NUMBERS[metric]
    name = _name(model.name, f"{field}.name", _MODEL_NAME, "a-z, 0-9, '.', '_' and '-'")
    dimension = _bounded(model.dimension, limits.MAX_DIMENSION, f"{field}.dimension")
    if model.metric not in (types_pb2.METRIC_UNSPECIFIED, metric_number):
        raise InvalidArgument(
            f"{field}.metric",
            f"is {model.metric}",
            f"must be {metric_number}, the metric of the collection, or not set",
        )
    for part, text, most in (
        ("revision", model.revision, limits.MAX_MODEL_REVISION_BYTES),
        ("query_prefix", model.query_prefix, limits.MAX_MODEL_PREFIX_BYTES),
        ("document_prefix", model.document_prefix, limits.MAX_MODEL_PREFIX_BYTES),
        ("pooling", model.pooling, limits.MAX_MODEL_POOLING_BYTES),
    ):
        size = len(text.encode())
        if size > most:
            raise InvalidArgument(f"{field}.{part}", f"has {size} bytes", f"must have at most {most}")
    return Model(
        number=number,
        name=name,
        dimension=dimension,
        metric=metric,
        revision=model.revision,
        normalised=model.normalised,
        query_prefix=model.query_prefix,
        document_prefix=model.document_prefix,
        pooling=model.pooling,
    )


def model_message(model: Model) -> types_pb2.Model:
    return types_pb2.Model(
        name=model.name,
        revision=model.revision,
        dimension=model.dimension,
        metric=_METRIC_NUMBERS[model.metric],
        normalised=model.normalised,
        query_prefix=model.query_prefix,
        document_prefix=model.document_prefix,
        pooling=model.pooling,
    )


def _specification(collection: Collection) -> tuple[object, ...]:
    return (
        collection.name,
        collection.shards,
        collection.replicas,
        collection.metric,
        collection.stored,
    )


def _bounded(value: int, most: int, field: str) -> int:
    if not 1 <= value <= most:
        raise InvalidArgument(field, f"is {value}", f"must be 1 to {most}")
    return value


def _name(name: str, field: str, pattern: re.Pattern[str], characters: str) -> str:
    bound = f"must be 1 to {limits.MAX_NAME_CHARACTERS} characters of {characters}, starting with a letter or digit"
    if len(name) > limits.MAX_NAME_CHARACTERS:
        raise InvalidArgument(field, f"has {len(name)} characters", bound)
    if not pattern.fullmatch(name):
        raise InvalidArgument(field, f"is {name!r}", bound)
    return name
