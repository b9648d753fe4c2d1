"""Filters as messages: kintsugi.filters.wire."""

import pytest
from harness.filters import FILTERS
from hypothesis import given

from kintsugi.errors import InvalidArgument
from kintsugi.filters import wire
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Not, OneOf, Range
from kintsugi.v1 import filters_pb2

Filter = filters_pb2.Filter
Value = filters_pb2.AttributeValue


@given(FILTERS)
def test_a_filter_survives_its_message(condition):
    """What is read back from the bytes of its message is the same tree."""
    data = wire.to_message(condition).SerializeToString(deterministic=True)
    assert wire.from_message(Filter.FromString(data)) == condition


def nested(depth):
    condition = Exists("a")
    for _ in range(depth - 1):
        condition = Not(condition)
    return condition


@pytest.mark.parametrize(
    "condition",
    [
        nested(16),
        AllOf(tuple(Exists("a") for _ in range(255))),
        Exists("é" * 256),
        Equals("a", "é" * 512),
        Equals("a", ""),
        OneOf("a", tuple(range(1000))),
        Range("a", above=2, below=1),
    ],
)
def test_filters_at_their_bounds_are_allowed(condition):
    """The largest of everything that the proto promises."""
    assert wire.from_message(wire.to_message(condition)) == condition


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (nested(17), "f" + ".not" * 16 + " is nested deeper than 16, must be nested at most 16 deep"),
        (AllOf(tuple(Exists("a") for _ in range(256))), "f has more than 256 conditions, must have at most 256"),
        (AllOf((Exists("a"), AnyOf(()))), "f.all.filters[1].any.filters has 0 entries, must have at least 1"),
        (Not(Exists("")), "f.not.exists.attribute has 0 bytes, must have 1 to 512"),
        (Equals("é" * 257, 1), "f.equals.attribute has 514 bytes, must have 1 to 512"),
        (Equals("a", "é" * 513), "f.equals.value.text has 1026 bytes, must have at most 1024"),
        (Equals("a", float("nan")), "f.equals.value.number is nan, must be finite"),
        (Equals("a", 10**400), "f.equals.value.number is inf, must be finite"),
        (OneOf("a", ()), "f.one_of.values has 0 entries, must have 1 to 1000"),
        (OneOf("a", (1,) * 1001), "f.one_of.values has 1001 entries, must have 1 to 1000"),
        (OneOf("a", (1, float("inf"))), "f.one_of.values[1].number is inf, must be finite"),
        (Range("a"), "f.range has no bound, must have at least one"),
        (Range("a", above=True), "f.range.above is boolean, must be text or number"),
        (Range("a", above=1, below="x"), "f.range has bounds of different kinds, must be all text or all number"),
        (Range("a", above=1, at_least=1), "f.range.at_least is set together with above, must be only one of them"),
        (Range("a", below=1, at_most=1), "f.range.at_most is set together with below, must be only one of them"),
        (Exists("\ud800"), "f holds '\\ud800', must be text that UTF-8 can encode"),
    ],
)
def test_a_filter_outside_its_bounds_is_refused_with_its_path(condition, message):
    """The error names the field, the value and the bound, before anything is sent."""
    with pytest.raises(InvalidArgument) as refused:
        wire.to_message(condition, "f")
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("given_message", "message"),
    [
        (Filter(), "f has no condition, must have exactly one"),
        (Filter(all=filters_pb2.FilterList(filters=[Filter()])), "f.all.filters[0] has no condition"),
        (Filter(equals=filters_pb2.Equals(attribute="a")), "f.equals.value has no value"),
        (Filter(one_of=filters_pb2.OneOf(attribute="a", values=[Value()])), "f.one_of.values[0] has no value"),
        (Filter(range=filters_pb2.Range(attribute="a", below=Value())), "f.range.below has no value"),
    ],
)
def test_a_message_with_something_missing_is_refused(given_message, message):
    """What a tree cannot express, a message can."""
    with pytest.raises(InvalidArgument) as refused:
        wire.from_message(given_message, "f")
    assert refused.value.message.startswith(message)


def test_a_filter_that_repeats_itself_is_refused_before_it_is_written_out():
    """Shared subtrees multiply when written: the count stops them early."""
    condition = Exists("a")
    for _ in range(15):
        condition = AllOf((condition,) * 1000)
    with pytest.raises(InvalidArgument, match="more than 256 conditions"):
        wire.to_message(condition)
