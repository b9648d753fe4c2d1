"""Filters as dicts: kintsugi.filters.dicts."""

import numpy as np
import pytest
from harness.filters import FILTERS
from hypothesis import given

from kintsugi.errors import InvalidArgument
from kintsugi.filters.dicts import from_dict
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Not, OneOf, Range

A, B = Equals("a", 1), Equals("b", 2)
_ORDER = {"above": "gt", "at_least": "gte", "below": "lt", "at_most": "lte"}


def to_dict(condition):
    """The inverse of from_dict."""
    match condition:
        case AllOf(filters):
            return {"$all": [to_dict(one) for one in filters]}
        case AnyOf(filters):
            return {"$any": [to_dict(one) for one in filters]}
        case Not(negated):
            return {"$not": to_dict(negated)}
        case Exists(attribute):
            return {name(attribute): {"exists": True}}
        case Equals(attribute, value):
            return {name(attribute): value}
        case OneOf(attribute, values):
            return {name(attribute): list(values)}
        case Range(attribute):
            return {name(attribute): {_ORDER[kind]: bound for kind, bound in condition.bounds.items()}}


def name(attribute):
    return f"${attribute}" if attribute.startswith("$") else attribute


@given(FILTERS)
def test_a_filter_survives_being_written_as_a_dict(condition):
    """Whatever the filter, its dict reads back as the same filter."""
    assert from_dict(to_dict(condition)) == condition


@pytest.mark.parametrize(
    ("given_dict", "condition"),
    [
        ({"a": 1}, A),
        ({"a": 1, "b": 2}, AllOf((A, B))),
        ({"a": {"eq": 1}}, A),
        ({"a": {"ne": 1}}, Not(A)),
        ({"a": [1, "x", True]}, OneOf("a", (1, "x", True))),
        ({"a": (1,)}, OneOf("a", (1,))),
        ({"a": {"in": [1]}}, OneOf("a", (1,))),
        ({"a": {"not_in": [1]}}, Not(OneOf("a", (1,)))),
        ({"year": {"gte": 2000, "lt": 2010}}, Range("year", at_least=2000, below=2010)),
        ({"year": {"gt": 2000, "lte": 2010}}, Range("year", above=2000, at_most=2010)),
        ({"a": {"gt": 0, "ne": 1}}, AllOf((Not(A), Range("a", above=0)))),
        ({"a": {"exists": True}}, Exists("a")),
        ({"a": {"exists": False}}, Not(Exists("a"))),
        ({"$any": [{"a": 1}, {"b": 2}]}, AnyOf((A, B))),
        ({"$all": [{"a": 1}, {"b": 2}]}, AllOf((A, B))),
        ({"$not": {"a": 1, "b": 2}}, Not(AllOf((A, B)))),
        ({"a": 1, "$any": [{"b": 2}]}, AllOf((A, AnyOf((B,))))),
        ({"$$a": 1}, Equals("$a", 1)),
        ({"$$any": [1]}, OneOf("$any", (1,))),
        ({"a": np.int64(1)}, A),
        ({"a": np.array([1.5, 2.5])}, OneOf("a", (1.5, 2.5))),
        ({"a": np.bool_(True)}, Equals("a", True)),
    ],
)
def test_dicts_are_read_as_documented(given_dict, condition):
    """Equality, lists, operators, connectives, escaped names, numbers of numpy."""
    assert from_dict(given_dict) == condition


@pytest.mark.parametrize(
    ("given_dict", "message"),
    [
        ({}, "f is empty, must have at least one condition"),
        ("a = 1", "f is a str, must be a dict of conditions"),
        ({1: 2}, "f has the key 1, must have strings as keys"),
        ({"a": None}, 'f.a is None, must be a value, or {"exists": False} for what is absent'),
        ({"a": {}}, "f.a has no operator, must have eq, ne, in, not_in, gt, gte, lt, lte or exists"),
        ({"a": {"like": 1}}, "f.a.like is the unknown operator 'like', must be eq, ne, in, not_in, gt"),
        ({"a": {"in": "xyz"}}, "f.a.in is a str, must be a list of values"),
        ({"a": {"exists": "no"}}, "f.a.exists is 'no', must be True or False"),
        ({"a": [[1]]}, "f.a[0] is a list, must be a string, a number or a boolean"),
        ({"a": float("nan")}, "f.a is nan, must be finite"),
        ({"$or": []}, "f.$or is the unknown word '$or', must be $all, $any or $not"),
        ({"$any": {"a": 1}}, "f.$any is a dict, must be a list of dicts"),
        ({"$any": []}, "f.$any has 0 entries, must have at least 1"),
        ({"$any": [{"a": 1}, {}]}, "f.$any[1] is empty, must have at least one condition"),
        ({"$not": [{"a": 1}]}, "f.$not is a list, must be a dict of conditions"),
    ],
)
def test_a_bad_dict_is_refused_with_its_path(given_dict, message):
    """The error names the place in the dict, what stands there and what must."""
    with pytest.raises(InvalidArgument) as refused:
        from_dict(given_dict, "f")
    assert refused.value.message.startswith(message)


def test_a_dict_that_holds_itself_is_refused():
    """Deep nesting is told from the path, before the interpreter's stack ends."""
    endless = {}
    endless["$not"] = endless
    with pytest.raises(InvalidArgument, match="nested deeper than 16"):
        from_dict(endless)
