"""A filter in any of the forms that the SDK takes: a dict, an expression or a tree. Pure."""

from collections.abc import Mapping
from typing import TypeAlias

from kintsugi.errors import InvalidArgument
from kintsugi.filters import wire
from kintsugi.filters.dicts import FilterDict, from_dict
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Range
from kintsugi.v1 import filters_pb2

FilterLike: TypeAlias = FilterDict | str | Filter

_TREE = (Equals, OneOf, Range, Exists, AllOf, AnyOf, Not)


def pack_filter(given: FilterLike, field: str = "filter") -> filters_pb2.Filter:
    """The filter as a message within its bounds. InvalidArgument names the place in the form in which it was given."""
    return wire.to_message(read_filter(given, field), field)


def read_filter(given: FilterLike, field: str = "filter") -> Filter:
    if isinstance(given, str):
        # The parser takes a while to load, and most programs have no use for it.
        from kintsugi.filters.expression import parse  # noqa: PLC0415

        return parse(given, field)
    if isinstance(given, _TREE):
        return given
    if isinstance(given, Mapping):
        return from_dict(given, field)
    raise InvalidArgument(field, f"is a {type(given).__name__}", "must be a dict, an expression or a filter")
