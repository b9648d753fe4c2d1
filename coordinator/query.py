"""Checks the fields of search requests against their bounds, which are those that the protos promise. Pure.

What comes out is complete: defaults filled in, vectors finite and of the model's dimension. Every refusal is
InvalidArgument and names the path of the field, its value and its bound.
"""

import math
from dataclasses import dataclass

import numpy as np

from kintsugi import columns, limits, tokens
from kintsugi.errors import InvalidArgument
from kintsugi.filters import wire
from kintsugi.filters.tree import OneOf
from kintsugi.metrics import FloatArray
from kintsugi.registry.records import Model
from kintsugi.tokens import Token
from kintsugi.v1 import search_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class Grouping:
    """Hits are wanted by the value of an attribute: the `size` best of each group. `only`: of these groups."""

    attribute: str
    size: int
    only: OneOf | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """`oversampling` 0 leaves the choice to the index's encoding, `ef_search` 0 to what it has learned. `filter` is a message in bytes, empty for none, so that
    equal filters are equal. With `group`, `k` counts groups."""

    k: int
    exact: bool
    oversampling: float
    min_coverage: float
    at_least: Token | None
    attributes: bool
    text: bool
    filter: bytes = b""
    min_score: float | None = None
    offset: int = 0
    group: Grouping | None = None
    tell_unmigrated: bool = False
    ef_search: int = 0

    @property
    def reach(self) -> int:
        """The hits, or groups, that every shard must give: any of the best ones may all be on one shard."""
        return self.offset + self.k


@dataclass(frozen=True, slots=True)
class Given:
    """The query vectors of one model, as they came in `vectors[place]`."""

    place: int
    model: str
    vectors: search_pb2.QueryVector | types_pb2.VectorBlock

    @property
    def field(self) -> str:
        return f"vectors[{self.place}]"

    def queries(self, model: Model) -> FloatArray:
        """The checked queries, count x dimension, little-endian f32."""
        if isinstance(self.vectors, search_pb2.QueryVector):
            matrix = _single_vector(self.vectors, model, self.field).reshape(1, -1)
            for _, problem, bound in columns.value_problems(matrix, model.metric):
                raise InvalidArgument(self.field, problem, bound)
        else:
            field, most = f"{self.field}.block", limits.MAX_QUERIES
            matrix = columns.unpack_vectors(self.vectors, field, dimension=model.dimension, max_count=most)
            columns.check_values(matrix, model.metric, field)
        return matrix.astype("<f4", copy=False)


@dataclass(frozen=True, slots=True)
class SearchInput:
    """A search request whose vectors wait for their models to be known: those of one model, or of two."""

    collection: str
    count: int
    options: Options
    given: tuple[Given, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models, in the order of the vectors."""
        return tuple(given.model for given in self.given)


def check_search(request: search_pb2.SearchRequest) -> SearchInput:
    _check_count(len(request.vectors))
    given = tuple(Given(place, vector.model, vector) for place, vector in enumerate(request.vectors))
    return SearchInput(request.collection, 1, check_options(request.options), given)


def check_batch(request: search_pb2.SearchBatchRequest) -> SearchInput:
    _check_count(len(request.vectors))
    count = request.vectors[0].block.count
    if not 1 <= count <= limits.MAX_QUERIES:
        raise InvalidArgument("vectors[0].block.count", f"is {count}", f"must be 1 to {limits.MAX_QUERIES}")
    for place, vectors in enumerate(request.vectors):
        if vectors.documents:
            field = f"vectors[{place}].documents"
            raise InvalidArgument(field, f"has {len(vectors.documents)} entries", "must be empty")
        if vectors.block.count != count:
            field, found = f"vectors[{place}].block.count", vectors.block.count
            raise InvalidArgument(field, f"is {found}", f"must be {count}, as in vectors[0]")
    given = tuple(Given(place, vectors.model, vectors.block) for place, vectors in enumerate(request.vectors))
    return SearchInput(request.collection, count, check_options(request.options), given)


def check_options(options: search_pb2.SearchOptions) -> Options:
    k = options.k or limits.DEFAULT_K
    if k > limits.MAX_K:
        raise InvalidArgument("options.k", f"is {k}", f"must be 1 to {limits.MAX_K}")
    least, most = limits.MIN_OVERSAMPLING, limits.MAX_OVERSAMPLING
    # Written so that NaN, which compares false to everything, is refused.
    if options.oversampling != 0 and not least <= options.oversampling <= most:
        raise InvalidArgument("options.oversampling", f"is {options.oversampling:g}", f"must be {least:g} to {most:g}")
    if options.ef_search > limits.MAX_EF_SEARCH:
        raise InvalidArgument("options.ef_search", f"is {options.ef_search}", f"must be 1 to {limits.MAX_EF_SEARCH}")
    if options.min_coverage != 0 and not 0 < options.min_coverage <= 1:
        raise InvalidArgument("options.min_coverage", f"is {options.min_coverage:g}", "must be above 0 and at most 1")
    if options.fields.vectors:
        raise InvalidArgument("options.fields.vectors", "is true", "must be false: searches do not return vectors")
    return Options(
        k=k,
        exact=options.exact,
        oversampling=options.oversampling,
        min_coverage=options.min_coverage or 1.0,
        at_least=tokens.decode(options.at_least, "options.at_least") if options.at_least else None,
        attributes=options.fields.attributes,
        text=options.fields.text,
        filter=_filter(options),
        min_score=_min_score(options),
        offset=_offset(options, k),
        group=_group(options, k),
        tell_unmigrated=options.tell_unmigrated,
        ef_search=options.ef_search,
    )


def _filter(options: search_pb2.SearchOptions) -> bytes:
    if not options.HasField("filter"):
        return b""
    wire.from_message(options.filter, "options.filter")
    return options.filter.SerializeToString(deterministic=True)


def _min_score(options: search_pb2.SearchOptions) -> float | None:
    if not options.HasField("min_score"):
        return None
    if not math.isfinite(options.min_score):
        raise InvalidArgument("options.min_score", f"is {options.min_score}", "must be finite")
    return options.min_score


def _offset(options: search_pb2.SearchOptions, k: int) -> int:
    offset, most = options.offset, limits.MAX_HITS
    if offset + k > most:
        raise InvalidArgument("options.offset", f"is {offset} with a k of {k}", f"must be at most {most} together")
    if offset and options.HasField("group_by"):
        raise InvalidArgument("options.offset", f"is {offset}", "must be 0 with group_by")
    return offset


def _group(options: search_pb2.SearchOptions, k: int) -> Grouping | None:
    if not options.HasField("group_by"):
        return None
    given, field = options.group_by, "options.group_by"
    attribute = wire.check_attribute(given.attribute, f"{field}.attribute")
    size, most = given.size or limits.DEFAULT_GROUP_SIZE, limits.MAX_HITS
    if size > limits.MAX_GROUP_SIZE:
        raise InvalidArgument(f"{field}.size", f"is {size}", f"must be 1 to {limits.MAX_GROUP_SIZE}")
    if k * size > most:
        raise InvalidArgument(f"{field}.size", f"is {size} with a k of {k}", f"must have a product of at most {most}")
    return Grouping(attribute, size)


def _check_count(count: int) -> None:
    if count not in {1, 2}:
        raise InvalidArgument("vectors", f"has {count} entries", "must have 1, or 2 while the collection is upgraded")


def _single_vector(vector: search_pb2.QueryVector, model: Model, field: str) -> FloatArray:
    kind = vector.WhichOneof("vector")
    if kind is None:
        raise InvalidArgument(field, "has no vector", "must have data or values")
    if kind == "data":
        expected = 4 * model.dimension
        if len(vector.data) != expected:
            raise InvalidArgument(
                f"{field}.data",
                f"has {len(vector.data)} bytes",
                f"must have {expected}: {model.dimension} elements of 4 bytes, the dimension of model {model.name}",
            )
        return np.frombuffer(vector.data, "<f4")
    count = len(vector.values.values)
    if count != model.dimension:
        raise InvalidArgument(
            f"{field}.values",
            f"has {count} elements",
            f"must have {model.dimension}, the dimension of model {model.name}",
        )
    return np.array(vector.values.values, "<f4")
