"""Filters as people write them in a program: a dict from attributes to what they must be. Pure.

    {"lang": "en"}                            equality; several entries must all hold
    {"tag": ["a", "b"]}                       one of these
    {"year": {"gte": 2000, "lt": 2010}}       operators; several of one attribute must all hold
    {"draft": {"exists": False}}              presence
    {"$any": [{...}, {...}]}, {"$all": [{...}, {...}]}, {"$not": {...}}

The operators are eq, ne, in, not_in, gt, gte, lt, lte and exists. Those of order make one interval: of an array of strings,
one element must lie within it. An attribute whose name begins with '$' is written with one more '$' in front.

Every refusal is InvalidArgument and names the path in the dict. Bounds are checked where a filter becomes a message (wire).
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from kintsugi import limits
from kintsugi.errors import InvalidArgument
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Range, Value

FilterDict: TypeAlias = Mapping[str, Any]

_ORDER = {"gt": "above", "gte": "at_least", "lt": "below", "lte": "at_most"}
_OPERATORS = "eq, ne, in, not_in, gt, gte, lt, lte or exists"
_COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)


def from_dict(given: FilterDict, field: str = "filter") -> Filter:
    return _all_of(given, field, 1)


def _all_of(given: object, field: str, depth: int) -> Filter:
    if depth > limits.MAX_FILTER_DEPTH:
        bound = limits.MAX_FILTER_DEPTH
        raise InvalidArgument(field, f"is nested deeper than {bound}", f"must be nested at most {bound} deep")
    if not isinstance(given, Mapping):
        raise InvalidArgument(field, f"is a {type(given).__name__}", "must be a dict of conditions")
    conditions: list[Filter] = []
    for name, wanted in given.items():
        if not isinstance(name, str):
            raise InvalidArgument(field, f"has the key {name!r}", "must have strings as keys")
        path = f"{field}.{name}"
        if name.startswith("$") and not name.startswith("$$"):
            conditions.append(_joined(name, wanted, path, depth))
        else:
            conditions += _of_attribute(name[1:] if name.startswith("$$") else name, wanted, path)
    return _one(conditions, field)


def _one(conditions: list[Filter], field: str) -> Filter:
    if not conditions:
        raise InvalidArgument(field, "is empty", "must have at least one condition")
    return conditions[0] if len(conditions) == 1 else AllOf(tuple(conditions))


def _joined(name: str, given: object, field: str, depth: int) -> Filter:
    if name == "$not":
        return Not(_all_of(given, field, depth + 1))
    if name not in ("$all", "$any"):
        raise InvalidArgument(field, f"is the unknown word {name!r}", "must be $all, $any or $not")
    if not isinstance(given, list | tuple):
        raise InvalidArgument(field, f"is a {type(given).__name__}", "must be a list of dicts")
    if not given:
        raise InvalidArgument(field, "has 0 entries", "must have at least 1")
    filters = tuple(_all_of(one, f"{field}[{place}]", depth + 1) for place, one in enumerate(given))
    return AllOf(filters) if name == "$all" else AnyOf(filters)


def _of_attribute(attribute: str, wanted: object, field: str) -> list[Filter]:
    if isinstance(wanted, Mapping):
        return _operators(attribute, wanted, field)
    if isinstance(wanted, _COLLECTIONS):
        return [OneOf(attribute, _values(wanted, field))]
    return [Equals(attribute, _value(wanted, field))]


def _operators(attribute: str, operators: Mapping[Any, object], field: str) -> list[Filter]:
    """One condition per operator, except that those of order make one interval."""
    found: list[Filter] = []
    bounds: dict[str, Any] = {}
    for word, operand in operators.items():
        path = f"{field}.{word}"
        if word in _ORDER:
            bounds[_ORDER[word]] = _value(operand, path)
        else:
            found.append(_operator(attribute, word, operand, path))
    if bounds:
        found.append(Range(attribute, **bounds))
    if not found:
        raise InvalidArgument(field, "has no operator", f"must have {_OPERATORS}")
    return found


def _operator(attribute: str, word: object, operand: object, field: str) -> Filter:
    match word:
        case "eq":
            return Equals(attribute, _value(operand, field))
        case "ne":
            return Not(Equals(attribute, _value(operand, field)))
        case "in":
            return OneOf(attribute, _values(operand, field))
        case "not_in":
            return Not(OneOf(attribute, _values(operand, field)))
        case "exists":
            if not isinstance(operand, bool | np.bool_):
                raise InvalidArgument(field, f"is {operand!r}", "must be True or False")
            return Exists(attribute) if operand else Not(Exists(attribute))
        case _:
            raise InvalidArgument(field, f"is the unknown operator {word!r}", f"must be {_OPERATORS}")


def _values(given: object, field: str) -> tuple[Value, ...]:
    if not isinstance(given, _COLLECTIONS):
        raise InvalidArgument(field, f"is a {type(given).__name__}", "must be a list of values")
    listed: list[object] = given.tolist() if isinstance(given, np.ndarray) else list(given)
    return tuple(_value(one, f"{field}[{place}]") for place, one in enumerate(listed))


def _value(given: object, field: str) -> Value:
    if isinstance(given, np.generic):
        given = given.item()
    if given is None:
        raise InvalidArgument(field, "is None", 'must be a value, or {"exists": False} for what is absent')
    if not isinstance(given, str | int | float):
        raise InvalidArgument(field, f"is a {type(given).__name__}", "must be a string, a number or a boolean")
    if isinstance(given, float) and not math.isfinite(given):
        raise InvalidArgument(field, f"is {given}", "must be finite")
    return given
