"""Filters and documents for property tests: small worlds, so that filters hold for some documents and not for others."""

from hypothesis import strategies as st

from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Not, OneOf, Range

NAMES = st.sampled_from(["a", "b", "a.b", "tags", "and", "not exists", "x`y", "ü"])
TEXTS = st.sampled_from(
    ["", "a", "b", "red", "it's", 'say "x"', "back\\slash", "new\nline", "\x00", "é", "𝄞", "true", "1"]
)
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.5, 0.1, 1e300, 5e-324, 2.0**53, 123456789.0]) | st.floats(
    allow_nan=False, allow_infinity=False
)
VALUES = TEXTS | NUMBERS | st.booleans() | st.text(max_size=8)


@st.composite
def ranges(draw):
    bounds = draw(st.sampled_from([TEXTS, NUMBERS]))
    lower = draw(st.sampled_from(["", "above", "at_least"]))
    upper = draw(st.sampled_from(["below", "at_most"] if not lower else ["", "below", "at_most"]))
    return Range(draw(NAMES), **{name: draw(bounds) for name in (lower, upper) if name})


COMPARISONS = (
    st.builds(Equals, NAMES, VALUES)
    | st.builds(OneOf, NAMES, st.lists(VALUES, min_size=1, max_size=4).map(tuple))
    | ranges()
    | st.builds(Exists, NAMES)
)


def _joined(inner):
    lists = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.builds(AllOf, lists) | st.builds(AnyOf, lists) | st.builds(Not, inner)


FILTERS = st.recursive(COMPARISONS, _joined, max_leaves=8)
