"""The forms in which the SDK takes a filter."""

import pytest

from kintsugi.errors import InvalidArgument
from kintsugi.filters.tree import AllOf, Equals, Not, Range
from kintsugi.filters.wire import from_message
from kintsugi.sdk.filtering import pack_filter

TREE = AllOf((Range("year", at_least=2000), Equals("lang", "en")))


@pytest.mark.parametrize("form", [TREE, {"year": {"gte": 2000}, "lang": "en"}, 'year >= 2000 and lang = "en"'])
def test_a_filter_is_a_tree_a_dict_or_an_expression(form):
    """All three forms become the same message."""
    assert from_message(pack_filter(form)) == TREE


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (5, "f is a int, must be a dict, an expression or a filter"),
        ("year >=", "f ends at character 8, expected a number or a string in quotes"),
        ({"year": None}, "f.year is None, must be a value"),
        (Not(Equals("", 1)), "f.not.equals.attribute has 0 bytes, must have 1 to 512"),
    ],
)
def test_a_bad_filter_is_refused_in_its_own_form(form, message):
    """The error names the place as the caller wrote it."""
    with pytest.raises(InvalidArgument) as refused:
        pack_filter(form, "f")
    assert refused.value.message.startswith(message)
