"""What a document's attributes say, and whether a filter holds for it: decided again, from the proto comments alone.

Pure. Of the product it takes only the words of the question: the tree in which a filter is written down.
"""

import json
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Range

# A value with its kind, since True == 1.0 in Python.
Fact = tuple[str, str | float | bool]

_NOTHING: frozenset[Fact] = frozenset()
_LONGEST_GROUP_BYTES = 1024
_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "above": operator.gt,
    "at_least": operator.ge,
    "below": operator.lt,
    "at_most": operator.le,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """`values` by attribute: an attribute that exists without a comparable value has none. `groups`: what it is grouped by."""

    values: dict[str, frozenset[Fact]]
    groups: dict[str, Fact]


@lru_cache(maxsize=10_000)
def facts_of(attributes: str) -> Facts:
    """`attributes`: a JSON object, or '' for none."""
    values: dict[str, set[Fact]] = {}
    groups: dict[str, Fact] = {}
    _walk(json.loads(attributes) if attributes else {}, "", values, groups)
    return Facts({name: frozenset(facts) for name, facts in values.items()}, groups)


def _walk(node: dict[str, Any], prefix: str, values: dict[str, set[Fact]], groups: dict[str, Fact]) -> None:
    for key, value in node.items():
        if value is None:
            continue
        name = prefix + key
        known = values.setdefault(name, set())
        if isinstance(value, dict):
            _walk(value, f"{name}.", values, groups)
        elif isinstance(value, list):
            known.update(("text", element) for element in value if isinstance(element, str))
        else:
            fact = fact_of(value)
            known.add(fact)
            if fact[0] != "text" or len(str(value).encode()) <= _LONGEST_GROUP_BYTES:
                groups.setdefault(name, fact)


def fact_of(value: str | float | bool) -> Fact:
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, str):
        return "text", value
    try:
        return "number", float(value)
    except OverflowError:
        return "number", math.inf if value > 0 else -math.inf


def fulfilling(condition: Filter, documents: Sequence[Facts]) -> Any:
    """For which of the documents the filter holds."""
    match condition:
        case AllOf(filters):
            return np.logical_and.reduce([fulfilling(one, documents) for one in filters])
        case AnyOf(filters):
            return np.logical_or.reduce([fulfilling(one, documents) for one in filters])
        case Not(negated):
            return ~fulfilling(negated, documents)
        case _:
            test = _test(condition)
            return np.fromiter(map(test, documents), np.bool_, len(documents))


def _test(condition: Filter) -> Callable[[Facts], bool]:
    match condition:
        case Exists(name):
            return lambda facts: name in facts.values
        case Equals(name, value):
            wanted = frozenset([fact_of(value)])
            return lambda facts: not wanted.isdisjoint(facts.values.get(name, _NOTHING))
        case OneOf(name, values):
            wanted = frozenset(map(fact_of, values))
            return lambda facts: not wanted.isdisjoint(facts.values.get(name, _NOTHING))
        case Range(name):
            bounds = [(_BOUNDS[word], *fact_of(bound)) for word, bound in condition.bounds.items()]
            return lambda facts: any(
                all(kind == bound_kind and holds(value, bound) for holds, bound_kind, bound in bounds)
                for kind, value in facts.values.get(name, _NOTHING)
            )
    raise TypeError(f"{condition!r} is no filter")
