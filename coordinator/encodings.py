"""The encodings that requests ask for: checked against the collection's metric and dimension. Pure."""

import msgspec

from kintsugi import limits
from kintsugi.ann import wire
from kintsugi.ann.spec import EncodingSpec, problem_of
from kintsugi.errors import InvalidArgument
from kintsugi.metrics import Metric
from kintsugi.registry.records import Collection
from kintsugi.v1 import collections_pb2


def parse(message: collections_pb2.Encoding, field: str, dimension: int, metric: Metric) -> EncodingSpec:
    """The encoding that a message asks for. Refuses what is outside its bound, by the path of the field."""
    spec = wire.from_message(message)
    if spec is None:
        raise InvalidArgument(f"{field}.kind", f"is {message.kind}", "must be one of EncodingKind")
    least, most = limits.MIN_OVERSAMPLING, limits.MAX_OVERSAMPLING
    # Written so that NaN, which compares false to everything, is refused.
    if spec.oversampling != 0 and not least <= spec.oversampling <= most:
        given = f"is {message.oversampling:g}"
        raise InvalidArgument(f"{field}.oversampling", given, f"must be {least:g} to {most:g}, or 0 for the default")
    if problem := problem_of(spec, dimension, metric):
        at, given, bound = problem
        raise InvalidArgument(f"{field}.{at}", given, bound)
    return spec


def asked_for(collection: Collection, message: collections_pb2.Encoding) -> Collection:
    """The collection after a request for an encoding. The request counts even if it asks for the present one: replicas
    whose check refused it then try again. While the collection is upgraded it must suit both models."""
    smallest = min(model.dimension for model in collection.live_models)
    return msgspec.structs.replace(
        collection,
        encoding=parse(message, "encoding", smallest, collection.metric),
        encoding_requests=collection.encoding_requests + 1,
    )
