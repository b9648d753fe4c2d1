"""Collection specifications: bounds, defaults, the way there and back."""

import pytest

from coordinator import collection_spec, encodings
from kintsugi.ann.spec import EncodingKind, EncodingSpec
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


def encoding(**fields):
    return collections_pb2.Encoding(**fields)


I8, RECURRENT, BINARY = (
    collections_pb2.EncodingKind.Value(f"ENCODING_KIND_{k}") for k in ("I8", "RECURRENT", "BINARY")
)


@pytest.mark.parametrize(
    ("metric", "wanted", "field", "says"),
    [
        (types_pb2.METRIC_COSINE, encoding(kind=42), "kind", "is 42"),
        (types_pb2.METRIC_L2, encoding(kind=BINARY), "kind", "binary"),
        (types_pb2.METRIC_L2, encoding(kind=RECURRENT, bits=3), "kind", "recurrent"),
        (types_pb2.METRIC_COSINE, encoding(kind=RECURRENT, bits=5), "bits", "2 to 4"),
        (types_pb2.METRIC_COSINE, encoding(kind=I8, bits=2), "bits", "must be 0"),
        (types_pb2.METRIC_COSINE, encoding(kind=I8, prefix=33), "prefix", "8 to 32"),
        (types_pb2.METRIC_COSINE, encoding(kind=I8, pca=7), "pca", "8 to 32"),
        (types_pb2.METRIC_COSINE, encoding(kind=I8, prefix=8, pca=8), "pca", "prefix"),
        (types_pb2.METRIC_COSINE, encoding(kind=I8, oversampling=0.9), "oversampling", "1 to 100"),
        (types_pb2.METRIC_COSINE, encoding(kind=I8, oversampling=float("nan")), "oversampling", "nan"),
        (types_pb2.METRIC_COSINE, encoding(prefix=8), "kind", "must be set"),
    ],
)
def test_an_encoding_outside_its_bounds_is_named(metric, wanted, field, says):
    """Field, value and bound; the bound of prefix and pca is the model's dimension, signs are no codes for l2."""
    with pytest.raises(InvalidArgument, match=says) as caught:
        parse(spec(metric=metric, models=[model(dimension=32)], encoding=wanted))
    assert caught.value.field == f"spec.encoding.{field}"


def test_an_encoding_is_kept_as_it_was_asked_for():
    """The bits of a recurrent encoding are filled in, an oversampling keeps its few digits, and none is automatic."""
    wanted = encoding(kind=RECURRENT, pca=16, oversampling=3.3)
    made = parse(spec(models=[model(dimension=32)], encoding=wanted))
    assert made.encoding == EncodingSpec(EncodingKind.RECURRENT, bits=2, pca=16, oversampling=3.3)
    assert collection_spec.is_same(made, parse(collection_spec.to_message(made).spec))
    assert parse(spec()).encoding.is_automatic
    assert not collection_spec.to_message(parse(spec())).spec.HasField("encoding")


def test_the_encoding_counts_until_it_is_changed():
    """A collection with another encoding is another one, unless it was encoded anew since its creation."""
    plain, encoded = parse(spec()), parse(spec(encoding=encoding(kind=I8)))
    assert not collection_spec.is_same(plain, encoded)
    changed = encodings.asked_for(plain, encoding(kind=BINARY))
    assert (changed.encoding.name, changed.encoding_requests) == ("binary", 1)
    assert collection_spec.is_same(changed, plain)
    assert collection_spec.is_same(changed, encoded)
    assert not collection_spec.is_same(changed, parse(spec(shards=4)))
