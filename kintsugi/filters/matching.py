"""What a filter means: whether a document's attributes fulfil it. Pure, and the measure of every faster way to find out.

1. An attribute is named by its key, and inside nested objects by the keys on the way joined with '.'. A key is read as it
   is written, so {"a.b": 1} and {"a": {"b": 1}} name the same attribute; a document with both has both values.
2. The values of an attribute are the string, number or boolean it is, or, for an array, the strings among its elements.
   A comparison holds when one of the values alone fulfils it.
3. Values of different kinds are neither equal nor in a range of each other. Numbers compare as binary64: integers exactly
   up to 2^53, -0.0 equal to 0.0, integers beyond binary64 as infinite. Strings compare whole, bytewise as UTF-8.
4. An attribute exists when its value is anything but null. Objects and arrays exist, empty ones included.

Nothing inside arrays has a name. Names without a filter that could name them (empty, or longer than its bound) are left out.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from kintsugi import limits
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Range, Value, value_of

# JSON as it is decoded. The values are looked at, one by one.
Attributes: TypeAlias = Mapping[str, Any]

# Booleans are integers to Python.
_SCALARS = (str, int, float)
_WITHIN: dict[str, Callable[[Any, Any], bool]] = {
    "above": operator.gt,
    "at_least": operator.ge,
    "below": operator.lt,
    "at_most": operator.le,
}
# Filters compare strings with values of at most MAX_FILTER_VALUE_BYTES: one byte more decides every comparison.
DECISIVE_BYTES = limits.MAX_FILTER_VALUE_BYTES + 1


def matches(condition: Filter, attributes: Attributes) -> bool:
    values: dict[str, list[Value]] = {}
    for name, value in flatten(attributes):
        values.setdefault(name, []).append(value)
    return _holds(condition, values, present(attributes))


def flatten(attributes: Attributes) -> Iterator[tuple[str, Value]]:
    """Every value that a comparison can find, under the name of its attribute. Some may come twice."""
    for name, value in _named(attributes, ""):
        if isinstance(value, _SCALARS):
            yield name, value_of(value)
        elif isinstance(value, list):
            for element in value:
                if isinstance(element, str):
                    yield name, element


def present(attributes: Attributes) -> set[str]:
    """The names of the attributes that exist."""
    return {name for name, _ in _named(attributes, "")}


def group_value(attributes: Attributes, attribute: str) -> Value | None:
    """The value that a document is grouped by: the attribute's, unless that is an array, an object or a string beyond the
    bound, or there is none. Of an attribute that is written twice, as `a.b` can be, the value written first."""
    for name, value in _named(attributes, ""):
        if name == attribute and isinstance(value, _SCALARS):
            too_long = isinstance(value, str) and len(decisive(value)) == DECISIVE_BYTES
            return None if too_long else value_of(value)
    return None


def decisive(text: str) -> bytes:
    """As much of a string as any comparison with a filter's values can depend on, in an encoding that sorts like it."""
    # A character has at least one byte.
    return text[:DECISIVE_BYTES].encode()[:DECISIVE_BYTES]


def _named(attributes: Attributes, prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in attributes.items():
        name = prefix + key
        if value is None or _too_long(name):
            continue
        if name:
            yield name, value
        if isinstance(value, dict):
            yield from _named(value, name + ".")


def _too_long(name: str) -> bool:
    bound = limits.MAX_ATTRIBUTE_NAME_BYTES
    # A character has 1 to 4 bytes: most names need not be encoded.
    return len(name) * 4 > bound and len(name.encode()) > bound


def _holds(condition: Filter, values: Mapping[str, list[Value]], names: set[str]) -> bool:
    match condition:
        case AllOf(filters):
            return all(_holds(one, values, names) for one in filters)
        case AnyOf(filters):
            return any(_holds(one, values, names) for one in filters)
        case Not(negated):
            return not _holds(negated, values, names)
        case Exists(attribute):
            return attribute in names
        case _:
            return any(_fulfils(condition, value) for value in values.get(condition.attribute, ()))


def _fulfils(condition: Equals | OneOf | Range, value: Value) -> bool:
    match condition:
        case Equals():
            return condition.kind is type(value) and condition.value == value
        case OneOf():
            pairs = zip(condition.kinds, condition.values, strict=True)
            return any(kind is type(value) and wanted == value for kind, wanted in pairs)
        case Range():
            bounds = condition.bounds.items()
            return all(type(bound) is type(value) and _WITHIN[name](value, bound) for name, bound in bounds)
