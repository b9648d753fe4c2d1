"""Filters as people type them: kintsugi.filters.expression."""

import pytest
from harness.filters import FILTERS
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.errors import InvalidArgument
from kintsugi.filters.expression import parse, to_text
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Not, OneOf, Range

A, B, C = Equals("a", 1), Equals("b", 2), Equals("c", 3)


def without_lone_lists(condition):
    """The same filter, with lists of one filter replaced by it: an expression cannot tell them apart."""
    match condition:
        case AllOf((one,)) | AnyOf((one,)):
            return without_lone_lists(one)
        case AllOf(filters):
            return AllOf(tuple(map(without_lone_lists, filters)))
        case AnyOf(filters):
            return AnyOf(tuple(map(without_lone_lists, filters)))
        case Not(negated):
            return Not(without_lone_lists(negated))
    return condition


@given(FILTERS)
def test_a_filter_survives_being_written_as_an_expression(condition):
    """Whatever the filter, its expression reads back as the same filter."""
    assert parse(to_text(condition)) == without_lone_lists(condition)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        (
            "year >= 2000 and tag in (\"a\", 'b') and not exists(draft)",
            AllOf((Range("year", at_least=2000), OneOf("tag", ("a", "b")), Not(Exists("draft")))),
        ),
        ("a = 1 or b = 2 and c = 3", AnyOf((A, AllOf((B, C))))),
        ("(a = 1 or b = 2) and c = 3", AllOf((AnyOf((A, B)), C))),
        ("not a = 1 and b = 2", AllOf((Not(A), B))),
        ("not (a = 1 and b = 2)", Not(AllOf((A, B)))),
        ("not not a = 1", Not(Not(A))),
        ("a == 1", A),
        ("a != 1", Not(A)),
        ("a <> 1", Not(A)),
        ("a not in (1)", Not(OneOf("a", (1,)))),
        ("NOT a = 1 AND b IN (TRUE, 2)", AllOf((Not(A), OneOf("b", (True, 2))))),
        ("a = true", Equals("a", True)),
        ("a = 'true'", Equals("a", "true")),
        ("a<-1.5e3", Range("a", below=-1500)),
        ("a > +.5", Range("a", above=0.5)),
        ("2000 <= year < 2010", Range("year", at_least=2000, below=2010)),
        ("2010 > year >= 2000", Range("year", at_least=2000, below=2010)),
        ("2000 < year", Range("year", above=2000)),
        ("'a' <= name <= \"b\"", Range("name", at_least="a", at_most="b")),
        ("author.name = 'Ann'", Equals("author.name", "Ann")),
        ("in-stock = 1", Equals("in-stock", 1)),
        ("not.x = 1", Equals("not.x", 1)),
        ("größe = 1", Equals("größe", 1)),
        ("`not` = 1", Equals("not", 1)),
        ("`a b``c` = 1", Equals("a b`c", 1)),
        (r'a = "it\'s \"\\\n\u00e9"', Equals("a", "it's \"\\\né")),
        ("\n a\t=\n1 ", A),
    ],
)
def test_expressions_are_read_as_documented(text, condition):
    """Precedence, both kinds of quotes, words in any case, quoted names, intervals."""
    assert parse(text) == condition


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'f is empty, must be an expression such as year >= 2000 and lang = "en"'),
        ("a", "f ends at character 2, expected not, in, =, != or <, <=, > or >="),
        ("a = ", "f ends at character 4, expected a number, a string in quotes, true or false"),
        ("a = b", "f has 'b' at character 5, expected a number, a string in quotes, true or false"),
        ("a = 'x", 'f has "\'" at character 5, expected a number, a string in quotes, true or false'),
        ("(a = 1", "f ends at character 7, expected )"),
        ("a = 1)", "f has ')' at character 6, expected the end"),
        ("a = 1 b = 2", "f has 'b' at character 7, expected and, or or the end"),
        ("a ! 1", "f has '!' at character 3, expected not, in, =, != or <, <=, > or >="),
        ("a in ()", "f has ')' at character 7, expected a number, a string in quotes, true or false"),
        ("a in (1 2)", "f has '2' at character 9, expected ) or ,"),
        ("a > true", "f has 'true' at character 5, expected a number or a string in quotes"),
        ("exists = 1", "f has '=' at character 8, expected ("),
        ("a = 12x", "f has '12x' at character 5, expected a number, a string in quotes, true or false"),
        ("1 < 2", "f has '2' at character 5, expected an attribute"),
        ("1 < a > 2", "f has > at character 7, must bound the attribute on its other side"),
        ("1 < a < 'b'", "f has 'b' at character 9, must be a string or a number as the other bound is"),
        ("a = 1e999", "f has the number 1e999 at character 5, must be finite"),
        (r"a = '\q'", r"f has the escape \q at character 5, must be one of \\ \" \' \n \r \t \b \f \uXXXX"),
    ],
)
def test_an_error_tells_where_and_what_was_expected(text, message):
    """The character, what stands there, and what could."""
    with pytest.raises(InvalidArgument) as refused:
        parse(text, "f")
    assert refused.value.message == message


def test_deep_nesting_is_refused_where_it_goes_too_deep():
    """Conditions nest at most 16 deep, and no amount of nesting exhausts the interpreter's stack."""
    assert parse("not " * 15 + "a = 1")
    with pytest.raises(InvalidArgument, match="nested deeper than 16 at character 1, must be nested at most 16 deep"):
        parse("not " * 16 + "a = 1")
    with pytest.raises(InvalidArgument, match="nested deeper than 16"):
        parse("not " * 20_000 + "a = 1")
    with pytest.raises(InvalidArgument, match="nested deeper than 16"):
        parse("(not " * 20_000 + "a = 1" + ")" * 20_000)


def test_parentheses_alone_do_not_nest():
    """Superfluous parentheses change nothing, however many."""
    assert parse("(" * 20_000 + "a = 1" + ")" * 20_000) == A


@given(st.text(alphabet="ab1 =<>!()'\"`,.\\ornotdie\n#é", max_size=30))
def test_any_text_is_read_or_refused(text):
    """Whatever is typed, the answer is a filter or InvalidArgument that names a place."""
    try:
        condition = parse(text)
    except InvalidArgument as error:
        refused = error.message
    else:
        refused = ""
        assert parse(to_text(condition)) == condition
    assert not refused or "at character" in refused or "is empty" in refused
