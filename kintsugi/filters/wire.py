"""Filters as messages, and back. Pure. What comes out of either direction is within the bounds that the proto promises.

Every refusal is InvalidArgument and names the path in the message, such as options.filter.all.filters[2].range.
"""

import math
from collections.abc import Iterable
from typing import Final

from kintsugi import limits
from kintsugi.errors import InvalidArgument
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Range, Value
from kintsugi.v1 import filters_pb2

_EXCLUSIVE = (("above", "at_least"), ("below", "at_most"))
_BOUNDS: Final = ("above", "at_least", "below", "at_most")


def from_message(message: filters_pb2.Filter, field: str = "filter") -> Filter:
    return _Reader(_Size(field)).filter(message, field, 1)


def to_message(condition: Filter, field: str = "filter") -> filters_pb2.Filter:
    message = filters_pb2.Filter()
    try:
        _Writer(_Size(field)).filter(condition, message, field, 1)
    except UnicodeEncodeError as error:
        raise InvalidArgument(field, f"holds {error.object[:80]!r}", "must be text that UTF-8 can encode") from error
    from_message(message, field)
    return message


def value_message(value: Value) -> filters_pb2.AttributeValue:
    if isinstance(value, bool):
        return filters_pb2.AttributeValue(boolean=value)
    if isinstance(value, str):
        return filters_pb2.AttributeValue(text=value)
    return filters_pb2.AttributeValue(number=value)


def value_of_message(message: filters_pb2.AttributeValue) -> Value:
    """The value as it was sent, unchecked. Raises ValueError when none is set."""
    match message.WhichOneof("kind"):
        case "text":
            return message.text
        case "number":
            return message.number
        case "boolean":
            return message.boolean
        case _:
            raise ValueError("no kind of value is set")


def check_attribute(name: str, field: str) -> str:
    size = len(name.encode())
    if not 1 <= size <= limits.MAX_ATTRIBUTE_NAME_BYTES:
        raise InvalidArgument(field, f"has {size} bytes", f"must have 1 to {limits.MAX_ATTRIBUTE_NAME_BYTES}")
    return name


class _Size:
    """Counts the conditions of one filter."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._conditions = 0

    def enter(self, field: str, depth: int) -> None:
        if depth > limits.MAX_FILTER_DEPTH:
            bound = limits.MAX_FILTER_DEPTH
            raise InvalidArgument(field, f"is nested deeper than {bound}", f"must be nested at most {bound} deep")
        self._conditions += 1
        if self._conditions > limits.MAX_FILTER_CONDITIONS:
            bound = limits.MAX_FILTER_CONDITIONS
            raise InvalidArgument(self._field, f"has more than {bound} conditions", f"must have at most {bound}")


class _Reader:
    """Reads a message, checking all of it."""

    def __init__(self, size: _Size) -> None:
        self._size = size

    def filter(self, message: filters_pb2.Filter, field: str, depth: int) -> Filter:
        self._size.enter(field, depth)
        kind = message.WhichOneof("condition")
        if kind is None:
            raise InvalidArgument(field, "has no condition", "must have exactly one")
        inside = f"{field}.{kind}"
        match kind:
            case "all":
                return AllOf(self._filters(message.all, inside, depth))
            case "any":
                return AnyOf(self._filters(message.any, inside, depth))
            case "not":
                return Not(self.filter(getattr(message, "not"), inside, depth + 1))
            case "exists":
                return Exists(check_attribute(message.exists.attribute, f"{inside}.attribute"))
            case "equals":
                attribute = check_attribute(message.equals.attribute, f"{inside}.attribute")
                return Equals(attribute, _value(message.equals.value, f"{inside}.value"))
            case "one_of":
                return _one_of(message.one_of, inside)
            case "range":
                return _range(message.range, inside)

    def _filters(self, message: filters_pb2.FilterList, field: str, depth: int) -> tuple[Filter, ...]:
        if not message.filters:
            raise InvalidArgument(f"{field}.filters", "has 0 entries", "must have at least 1")
        places = enumerate(message.filters)
        return tuple(self.filter(one, f"{field}.filters[{place}]", depth + 1) for place, one in places)


def _value(message: filters_pb2.AttributeValue, field: str) -> Value:
    try:
        value = value_of_message(message)
    except ValueError as error:
        raise InvalidArgument(field, "has no value", "must have text, number or boolean") from error
    if isinstance(value, str):
        size = len(value.encode())
        if size > limits.MAX_FILTER_VALUE_BYTES:
            bound = f"must have at most {limits.MAX_FILTER_VALUE_BYTES}"
            raise InvalidArgument(f"{field}.text", f"has {size} bytes", bound)
    elif not math.isfinite(value):
        raise InvalidArgument(f"{field}.number", f"is {value}", "must be finite")
    return value


def _one_of(message: filters_pb2.OneOf, field: str) -> OneOf:
    attribute = check_attribute(message.attribute, f"{field}.attribute")
    count = len(message.values)
    if not 1 <= count <= limits.MAX_ONE_OF_VALUES:
        bound = f"must have 1 to {limits.MAX_ONE_OF_VALUES}"
        raise InvalidArgument(f"{field}.values", f"has {count} entries", bound)
    places = enumerate(message.values)
    return OneOf(attribute, tuple(_value(value, f"{field}.values[{place}]") for place, value in places))


def _range(message: filters_pb2.Range, field: str) -> Range:
    attribute = check_attribute(message.attribute, f"{field}.attribute")
    bounds: dict[str, str | float] = {}
    for name in _BOUNDS:
        if message.HasField(name):
            bound = _value(getattr(message, name), f"{field}.{name}")
            if isinstance(bound, bool):
                raise InvalidArgument(f"{field}.{name}", "is boolean", "must be text or number")
            bounds[name] = bound
    if not bounds:
        raise InvalidArgument(field, "has no bound", "must have at least one")
    for first, second in _EXCLUSIVE:
        if first in bounds and second in bounds:
            raise InvalidArgument(f"{field}.{second}", f"is set together with {first}", "must be only one of them")
    if len({type(bound) for bound in bounds.values()}) > 1:
        raise InvalidArgument(field, "has bounds of different kinds", "must be all text or all number")
    return Range(attribute, **bounds)


class _Writer:
    """Writes a message, checking only that it ends."""

    def __init__(self, size: _Size) -> None:
        self._size = size

    def filter(self, condition: Filter, message: filters_pb2.Filter, field: str, depth: int) -> None:
        self._size.enter(field, depth)
        match condition:
            case AllOf(filters):
                self._list(filters, message.all, f"{field}.all", depth)
            case AnyOf(filters):
                self._list(filters, message.any, f"{field}.any", depth)
            case Not(negated):
                self.filter(negated, getattr(message, "not"), f"{field}.not", depth + 1)
            case Exists(attribute):
                message.exists.CopyFrom(filters_pb2.Exists(attribute=attribute))
            case Equals(attribute, value):
                message.equals.CopyFrom(filters_pb2.Equals(attribute=attribute, value=value_message(value)))
            case OneOf(attribute, values):
                message.one_of.CopyFrom(filters_pb2.OneOf(attribute=attribute, values=map(value_message, values)))
            case Range(attribute):
                bounds = {name: value_message(bound) for name, bound in condition.bounds.items()}
                message.range.CopyFrom(filters_pb2.Range(attribute=attribute, **bounds))

    def _list(self, filters: Iterable[Filter], message: filters_pb2.FilterList, field: str, depth: int) -> None:
        message.SetInParent()
        for place, one in enumerate(filters):
            self.filter(one, message.filters.add(), f"{field}.filters[{place}]", depth + 1)
