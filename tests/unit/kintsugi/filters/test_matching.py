"""What filters mean: kintsugi.filters.matching, and the values of kintsugi.filters.tree."""

import math

import pytest

from kintsugi.filters.matching import decisive, flatten, group_value, matches, present
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Not, OneOf, Range

DOCUMENT = {
    "lang": "en",
    "year": 2004,
    "score": 0.5,
    "draft": False,
    "tags": ["red", "green"],
    "author": {"name": "Ann", "age": None, "address": {}},
    "nothing": None,
    "empty": [],
    "numbers": [1, 2],
    "mixed": ["a", 1, None, {"x": 1}],
}


@pytest.mark.parametrize(
    ("condition", "fulfilled"),
    [
        (Equals("lang", "en"), True),
        (Equals("lang", "EN"), False),
        (Equals("year", 2004), True),
        (Equals("year", 2004.0), True),
        (Equals("year", "2004"), False),
        (Equals("draft", False), True),
        (Equals("draft", 0), False),
        (Equals("draft", "false"), False),
        (Equals("tags", "green"), True),
        (Equals("tags", "blue"), False),
        (Equals("author.name", "Ann"), True),
        (Equals("name", "Ann"), False),
        (Equals("numbers", 1), False),
        (Equals("mixed", "a"), True),
        (Equals("mixed", 1), False),
        (Equals("mixed.x", 1), False),
        (Equals("missing", "x"), False),
        (OneOf("lang", ("de", "en")), True),
        (OneOf("lang", ("de", "fr")), False),
        (OneOf("year", ("2004", 2004)), True),
        (OneOf("draft", (0, "false")), False),
        (Range("year", at_least=2004, below=2005), True),
        (Range("year", above=2004), False),
        (Range("year", at_most=2004), True),
        (Range("year", below=2004), False),
        (Range("year", above="2"), False),
        (Range("draft", at_least=0), False),
        (Range("lang", at_least="e", below="f"), True),
        (Range("lang", above="en"), False),
        (Range("tags", above="green", below="s"), True),
        (Range("numbers", at_least=0), False),
        (Range("year", above=3000, below=1000), False),
        (Exists("lang"), True),
        (Exists("author"), True),
        (Exists("author.address"), True),
        (Exists("author.age"), False),
        (Exists("nothing"), False),
        (Exists("empty"), True),
        (Exists("numbers"), True),
        (Exists("missing"), False),
        (Not(Exists("missing")), True),
        (Not(Equals("missing", "x")), True),
        (Not(Equals("lang", "en")), False),
        (AllOf((Equals("lang", "en"), Equals("year", 2004))), True),
        (AllOf((Equals("lang", "en"), Equals("year", 2005))), False),
        (AnyOf((Equals("lang", "de"), Equals("year", 2004))), True),
        (AnyOf((Equals("lang", "de"), Equals("year", 2005))), False),
    ],
)
def test_a_filter_holds_for_a_document_as_the_contract_says(condition, fulfilled):
    """Comparisons by kind, arrays of strings by element, presence, and the connectives."""
    assert matches(condition, DOCUMENT) is fulfilled


def test_one_element_alone_must_lie_within_both_bounds():
    """An array with one string above and another one below an interval is not within it."""
    assert not matches(Range("tags", above="b", below="y"), {"tags": ["a", "z"]})


def test_an_attribute_written_with_a_dot_and_nested_has_both_values():
    """Keys are read as they are written, so both spellings name one attribute."""
    twice = {"a.b": 1, "a": {"b": 2}}
    assert matches(AllOf((Equals("a.b", 1), Equals("a.b", 2))), twice)
    assert group_value(twice, "a.b") == 1


def test_numbers_compare_as_binary64():
    """Zero has no sign, integers beyond 2^53 round, and beyond binary64 they are infinite."""
    assert matches(Equals("n", 0.0), {"n": -0.0})
    assert matches(Equals("n", 2**53), {"n": 2**53 + 1})
    assert matches(Range("n", above=1e308), {"n": 10**400})
    assert matches(Range("n", below=-1e308), {"n": -(10**400)})
    assert math.isinf(dict(flatten({"n": 10**400}))["n"])


def test_true_is_not_one_in_the_tree():
    """Filters that Python would take for equal differ, and equal filters hash alike."""
    assert Equals("a", True) != Equals("a", 1)
    assert OneOf("a", (True,)) != OneOf("a", (1,))
    assert len({Equals("a", 1), Equals("a", 1.0), Equals("a", True)}) == 2
    assert hash(Equals("a", -0.0)) == hash(Equals("a", 0))


def test_long_strings_exist_and_compare_whole():
    """A string longer than any bound is never equal to one, and sorts behind the bound that it begins with."""
    long = "é" * 512 + "x"
    bound = "é" * 512
    assert not matches(Equals("s", bound), {"s": long})
    assert matches(Range("s", above=bound), {"s": long})
    assert matches(Exists("s"), {"s": long})


@pytest.mark.parametrize("bound", ["", "a", "é" * 512, "é" * 511 + "a", "𝄞" * 256, "z" * 1024])
@pytest.mark.parametrize("text", ["", "é" * 512, "é" * 513, "é" * 512 + "a", "é" * 20000, "𝄞" * 257, "z" * 5000])
def test_the_decisive_part_of_a_string_compares_like_the_whole(bound, text):
    """Against values within the bound, the first bytes of a string decide as its whole does."""
    short, whole, wanted = decisive(text), text.encode(), bound.encode()
    assert (short < wanted, short == wanted, short > wanted) == (whole < wanted, whole == wanted, whole > wanted)
    assert (text < bound) == (whole < wanted)


def test_names_that_no_filter_can_name_are_left_out():
    """An empty name, and one longer than the bound with all that is nested in it."""
    document = {"": 1, "x" * 513: {"y": 1}, "é" * 256: 2, "a": {"": 3}}
    assert dict(flatten(document)) == {"é" * 256: 2, "a.": 3}
    assert present(document) == {"é" * 256, "a", "a."}


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("lang", "en"), ("year", 2004.0), ("draft", False), ("tags", None), ("author", None), ("author.name", "Ann"),
     ("nothing", None), ("missing", None)],
)  # fmt: skip
def test_a_document_is_grouped_by_a_single_value(attribute, value):
    """Strings, numbers and booleans are groups; arrays, objects and what is absent are none."""
    found = group_value(DOCUMENT, attribute)
    assert found == value
    assert type(found) is type(value)


def test_a_string_too_long_for_a_filter_is_no_group():
    """Groups are values that a filter can name."""
    assert group_value({"a": "é" * 512}, "a") == "é" * 512
    assert group_value({"a": "é" * 512 + "x"}, "a") is None
