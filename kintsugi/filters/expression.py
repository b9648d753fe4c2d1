"""Filters as people type them: `year >= 2000 and tag in ("a", "b") and not exists(draft)`. Pure.

`parse` reads an expression and `to_text` writes one that reads back as the same filter. Errors are InvalidArgument and name
the character (from 1) at which reading stopped, what stands there and what could. Nesting costs no recursion. Bounds
beside depth are checked where a filter becomes a message (wire).
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import lark
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from kintsugi import limits
from kintsugi.errors import InvalidArgument
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Range, Value

# Words count in any case. An attribute with the name of a word, or with other characters, stands in backticks.
_GRAMMAR = r"""
?start: disjunction
?disjunction: conjunction
    | conjunction (OR conjunction)+  -> any_of
?conjunction: negation
    | negation (AND negation)+       -> all_of
?negation: condition
    | NOT negation                   -> negated
?condition: "(" disjunction ")"
    | EXISTS "(" name ")"            -> exists
    | name EQUAL value               -> equals
    | name UNEQUAL value             -> differs
    | name IN "(" values ")"         -> one_of
    | name NOT IN "(" values ")"     -> none_of
    | name ORDER bound               -> bounded
    | bound ORDER name               -> bounded
    | bound ORDER name ORDER bound   -> bounded
values: value ("," value)*
?value: bound | TRUE | FALSE
bound: NUMBER | STRING
name: NAME | QUOTED

OR.2: /or(?![\w.-])/i
AND.2: /and(?![\w.-])/i
NOT.2: /not(?![\w.-])/i
IN.2: /in(?![\w.-])/i
EXISTS.2: /exists(?![\w.-])/i
TRUE.2: /true(?![\w.-])/i
FALSE.2: /false(?![\w.-])/i
NAME: /[^\W\d][\w-]*(\.[\w-]+)*/
QUOTED: /`(?:[^`]|``)+`/
NUMBER: /[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?(?![\w.])/
STRING: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
EQUAL: /==?/
UNEQUAL.2: /!=|<>/
ORDER: "<=" | "<" | ">=" | ">"
%ignore /\s+/
"""
_WORD = re.compile(r"\w+|.", re.DOTALL)
_WORDS = frozenset({"or", "and", "not", "in", "exists", "true", "false"})
_NAME = re.compile(r"[^\W\d][\w-]*(\.[\w-]+)*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_EXPECTED = {
    "NAME": "an attribute", "QUOTED": "an attribute", "NUMBER": "a number", "STRING": "a string in quotes", "TRUE": "true",
    "FALSE": "false", "AND": "and", "OR": "or", "NOT": "not", "IN": "in", "EXISTS": "exists", "EQUAL": "=",
    "UNEQUAL": "!=", "ORDER": "<, <=, > or >=", "LPAR": "(", "RPAR": ")", "COMMA": ",", "$END": "the end",
}  # fmt: skip
# The bound that "value ORDER name" sets, and the one that "name ORDER value" sets.
_BEFORE = {"<": "above", "<=": "at_least", ">": "below", ">=": "at_most"}
_BEHIND = {"<": "below", "<=": "at_most", ">": "above", ">=": "at_least"}
_SIGNS = {"above": ">", "at_least": ">=", "below": "<", "at_most": "<="}
_LOWER = ("above", "at_least")
_SHOWN_CHARACTERS = 20


class _Problem(Exception):
    """What is wrong at a token, without the name of the field."""

    def __init__(self, token: lark.Token, problem: str, bound: str) -> None:
        super().__init__(problem)
        self.problem = f"{problem} at character {(token.start_pos or 0) + 1}"
        self.bound = bound


@dataclass(frozen=True, slots=True)
class _Part:
    """A filter and how deep it nests."""

    filter: Filter
    depth: int = 1


@dataclass(frozen=True, slots=True)
class _Operand:
    """A value and where it stands."""

    value: Value
    token: lark.Token


def parse(text: str, field: str = "filter") -> Filter:
    if not text.strip():
        raise InvalidArgument(field, "is empty", 'must be an expression such as year >= 2000 and lang = "en"')
    try:
        part: Any = _parser().parse(text)
    except UnexpectedToken as error:
        at_end = error.token.type == "$END"
        _refuse(field, text, len(text) if at_end else error.pos_in_stream or 0, error.accepts or error.expected)
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        _refuse(field, text, position, _accepted_behind(text[:position]))
    except _Problem as error:
        raise InvalidArgument(field, error.problem, error.bound) from error
    return part.filter  # type: ignore[no-any-return]


def to_text(condition: Filter) -> str:
    """An expression that means the same. A list of one filter is written as that filter."""
    match condition:
        case AllOf(filters):
            return " and ".join(_inner(one, alone=len(filters) == 1) for one in filters)
        case AnyOf(filters):
            return " or ".join(_inner(one, alone=len(filters) == 1) for one in filters)
        case Not(Equals(attribute, value)):
            return f"{_name(attribute)} != {_literal(value)}"
        case Not(OneOf(attribute, values)):
            return f"{_name(attribute)} not in ({', '.join(map(_literal, values))})"
        case Not(negated):
            return f"not {_inner(negated)}"
        case Exists(attribute):
            return f"exists({_name(attribute)})"
        case Equals(attribute, value):
            return f"{_name(attribute)} = {_literal(value)}"
        case OneOf(attribute, values):
            return f"{_name(attribute)} in ({', '.join(map(_literal, values))})"
        case Range():
            return _interval(condition)


def _inner(condition: Filter, *, alone: bool = False) -> str:
    """A part of an expression, in parentheses when it would fall apart without."""
    text = to_text(condition)
    joins = isinstance(condition, AllOf | AnyOf)
    return f"({text})" if joins and not alone else text


def _interval(condition: Range) -> str:
    name, bounds = _name(condition.attribute), condition.bounds
    if len(bounds) == 1:
        ((kind, bound),) = bounds.items()
        return f"{name} {_SIGNS[kind]} {_literal(bound)}"
    (lower, least), (upper, most) = bounds.items()
    first = "<=" if lower == "at_least" else "<"
    return f"{_literal(least)} {first} {name} {_SIGNS[upper]} {_literal(most)}"


def _name(attribute: str) -> str:
    if _NAME.fullmatch(attribute) and attribute.lower() not in _WORDS:
        return attribute
    return "`" + attribute.replace("`", "``") + "`"


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.0f}" if value.is_integer() and abs(value) < 2**53 else repr(value)


# --- Reading --------------------------------------------------------------------------------------------------------


class _Build(lark.Transformer[lark.Token, _Part]):
    """Makes the filter while it is read, from the inside out."""

    def name(self, tokens: list[lark.Token]) -> str:
        (token,) = tokens
        return token[1:-1].replace("``", "`") if token.type == "QUOTED" else str(token)

    def bound(self, tokens: list[lark.Token]) -> _Operand:
        (token,) = tokens
        if token.type == "STRING":
            return _Operand(_unquoted(token), token)
        number = float(token)
        if not math.isfinite(number):
            raise _Problem(token, f"has the number {_clipped(token)}", "must be finite")
        return _Operand(number, token)

    def values(self, values: list[Any]) -> tuple[Value, ...]:
        return tuple(map(_value_of, values))

    def any_of(self, parts: list[Any]) -> _Part:
        return _nested(AnyOf(tuple(part.filter for part in parts[::2])), parts[::2], parts[1])

    def all_of(self, parts: list[Any]) -> _Part:
        return _nested(AllOf(tuple(part.filter for part in parts[::2])), parts[::2], parts[1])

    def negated(self, parts: list[Any]) -> _Part:
        word, part = parts
        return _nested(Not(part.filter), [part], word)

    def exists(self, parts: list[Any]) -> _Part:
        return _Part(Exists(parts[1]))

    def equals(self, parts: list[Any]) -> _Part:
        return _Part(Equals(parts[0], _value_of(parts[2])))

    def differs(self, parts: list[Any]) -> _Part:
        name, sign, value = parts
        return _nested(Not(Equals(name, _value_of(value))), [_Part(Exists(name))], sign)

    def one_of(self, parts: list[Any]) -> _Part:
        return _Part(OneOf(parts[0], parts[2]))

    def none_of(self, parts: list[Any]) -> _Part:
        name, word, _, values = parts
        return _nested(Not(OneOf(name, values)), [_Part(Exists(name))], word)

    def bounded(self, parts: list[Any]) -> _Part:
        place = next(place for place, part in enumerate(parts) if isinstance(part, str) and not _is_sign(part))
        bounds: dict[str, Value] = {}
        if place:
            bounds[_BEFORE[str(parts[1])]] = parts[0].value
        if place + 1 < len(parts):
            sign, operand = parts[place + 1], parts[place + 2]
            kind = _BEHIND[str(sign)]
            if any((kind in _LOWER) == (other in _LOWER) for other in bounds):
                raise _Problem(sign, f"has {sign}", "must bound the attribute on its other side")
            if any(type(operand.value) is not type(other) for other in bounds.values()):
                kinds = "must be a string or a number as the other bound is"
                raise _Problem(operand.token, f"has {_clipped(operand.token)}", kinds)
            bounds[kind] = operand.value
        return _Part(Range(parts[place], **bounds))


def _is_sign(part: str) -> bool:
    return isinstance(part, lark.Token)


def _value_of(part: Any) -> Value:
    if isinstance(part, _Operand):
        return part.value
    return bool(part.type == "TRUE")


def _nested(made: Filter, parts: Iterable[_Part], token: lark.Token) -> _Part:
    depth = 1 + max(part.depth for part in parts)
    bound = limits.MAX_FILTER_DEPTH
    if depth > bound:
        raise _Problem(token, f"is nested deeper than {bound}", f"must be nested at most {bound} deep")
    return _Part(made, depth)


def _unquoted(token: lark.Token) -> str:
    def character(escape: re.Match[str]) -> str:
        digits, letter = escape.groups()
        if digits:
            return chr(int(digits, 16))
        if letter.isalnum() and letter not in _ESCAPES:
            raise _Problem(token, f"has the escape \\{letter}", r"must be one of \\ \" \' \n \r \t \b \f \uXXXX")
        return _ESCAPES.get(letter, letter)

    return _ESCAPE.sub(character, token[1:-1])


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _refuse(field: str, text: str, position: int, terminals: Iterable[str]) -> NoReturn:
    end = len(text.rstrip())
    found = f"has {_clipped(_WORD.match(text, position)[0])!r}" if position < end else "ends"  # type: ignore[index]
    expected = list(dict.fromkeys(word for terminal, word in _EXPECTED.items() if terminal in set(terminals)))
    raise InvalidArgument(field, f"{found} at character {min(position, end) + 1}", f"expected {_listed(expected)}")


def _accepted_behind(start: str) -> set[str]:
    reading = _parser().parse_interactive(start)
    reading.exhaust_lexer()
    return set(reading.accepts())  # type: ignore[no-untyped-call]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


@cache
def _parser() -> lark.Lark:
    return lark.Lark(_GRAMMAR, parser="lalr", transformer=_Build())
