"""Collection specifications: bounds, defaults, the way there and back."""

import pytest

from coordinator import collection_spec
from kintsugi.errors import InvalidArgument
from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.records import Defaults
from kintsugi.v1 import collections_pb2, types_pb2

DEFAULTS = Defaults(shards=3, replicas=2)


def spec(**changes):
    fields = {"name": "docs", "metric": types_pb2.METRIC_COSINE, "models": [model()]}
    return collections_pb2.CollectionSpec(**{**fields, **changes})


def model(**changes):
    return types_pb2.Model(**{"name": "m1", "dimension": 3, **changes})


def parse(message):
    return collection_spec.parse(message, DEFAULTS, uid="u", created_at_us=1_000_001)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (spec(name=""), "spec.name"),
        (spec(name="Docs"), "spec.name"),
        (spec(name="-docs"), "spec.name"),
        (spec(name="docs\n"), "spec.name"),
        (spec(name="x" * 65), "spec.name"),
        (spec(shards=257), "spec.shards"),
        (spec(replicas=9), "spec.replicas"),
        (spec(metric=0), "spec.metric"),
        (spec(metric=9), "spec.metric"),
        (spec(models=[]), "spec.models"),
        (spec(models=[model(), model(name="m2")]), "spec.models"),
        (spec(stored_element_type=7), "spec.stored_element_type"),
        (spec(models=[model(name="")]), "spec.models[0].name"),
        (spec(models=[model(name="a/b")]), "spec.models[0].name"),
        (spec(models=[model(dimension=0)]), "spec.models[0].dimension"),
        (spec(models=[model(dimension=8193)]), "spec.models[0].dimension"),
        (spec(models=[model(metric=types_pb2.METRIC_L2)]), "spec.models[0].metric"),
        (spec(models=[model(revision="x" * 129)]), "spec.models[0].revision"),
        (spec(models=[model(query_prefix="é" * 513)]), "spec.models[0].query_prefix"),
        (spec(models=[model(document_prefix="x" * 1025)]), "spec.models[0].document_prefix"),
        (spec(models=[model(pooling="x" * 65)]), "spec.models[0].pooling"),
    ],
)
def test_field_outside_its_bound_is_named(message, field):
    """Every bound that the proto promises is enforced."""
    with pytest.raises(InvalidArgument) as caught:
        parse(message)
    assert caught.value.field == field


def test_defaults_fill_what_is_not_set():
    """Shards and replicas come from the cluster, the number format is f32, the model takes the metric."""
    collection = parse(spec())
    assert (collection.shards, collection.replicas) == (3, 2)
    assert collection.stored is StoredType.F32
    assert collection.models[0].metric is Metric.COSINE
    assert collection.serving_model == "m1"


def test_message_of_a_collection_asks_for_the_same_collection():
    """What Get returns can be given to Create."""
    full = model(revision="r", normalised=True, query_prefix="q", document_prefix="d", pooling="cls")
    first = parse(spec(shards=5, replicas=1, stored_element_type=types_pb2.ELEMENT_TYPE_F16, models=[full]))
    message = collection_spec.to_message(first)
    assert message.created_at.ToMicroseconds() == 1_000_001
    assert collection_spec.is_same(parse(message.spec), first)


@pytest.mark.parametrize(
    "other", [spec(shards=4), spec(metric=types_pb2.METRIC_DOT), spec(models=[model(dimension=4)])]
)
def test_any_difference_makes_another_specification(other):
    """Create must not return a collection that differs from what was asked for."""
    assert not collection_spec.is_same(parse(spec()), parse(other))
