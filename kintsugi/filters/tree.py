"""What a filter is: a tree of conditions on attributes. Frozen and hashable.

Guarantees: equal trees are equal filters. Numbers are binary64 and -0.0 is 0.0, whatever they were given as; True and 1.0
are different values, although Python takes them for equal. Does not know bounds (see wire) or meaning (see matching).
"""

import math
from dataclasses import dataclass, field
from typing import TypeAlias

# A string, a number or a boolean. Only floats are numbers: `value_of` turns integers into them.
Value: TypeAlias = str | float | bool


def value_of(value: str | float | bool) -> Value:
    """The value as filters compare it: numbers as binary64, infinite beyond its range, without the sign of zero."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@dataclass(frozen=True, slots=True)
class Equals:
    """The attribute has this value."""

    attribute: str
    value: Value
    # Part of equality: tells True from 1.0.
    kind: type = field(init=False, repr=False)

    def __post_init__(self) -> None:
        value = value_of(self.value)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "kind", type(value))


@dataclass(frozen=True, slots=True)
class OneOf:
    """The attribute has one of these values."""

    attribute: str
    values: tuple[Value, ...]
    # Part of equality: tells True from 1.0.
    kinds: tuple[type, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = tuple(map(value_of, self.values))
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "kinds", tuple(map(type, values)))


@dataclass(frozen=True, slots=True)
class Range:
    """The attribute lies within bounds, which are all numbers or all strings. None: no such bound."""

    attribute: str
    above: str | float | None = None
    at_least: str | float | None = None
    below: str | float | None = None
    at_most: str | float | None = None

    def __post_init__(self) -> None:
        for name, bound in self.bounds.items():
            object.__setattr__(self, name, value_of(bound))

    @property
    def bounds(self) -> dict[str, str | float]:
        """The bounds that are given, by their names."""
        named = {"above": self.above, "at_least": self.at_least, "below": self.below, "at_most": self.at_most}
        return {name: bound for name, bound in named.items() if bound is not None}


@dataclass(frozen=True, slots=True)
class Exists:
    """The document has the attribute."""

    attribute: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of the filters hold."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the filters holds."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """The filter does not hold."""

    filter: "Filter"


Filter: TypeAlias = Equals | OneOf | Range | Exists | AllOf | AnyOf | Not
