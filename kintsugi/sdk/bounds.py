"""What the wire cannot carry is refused here, with the path of the field. Every tighter bound is the server's to check."""

import numpy as np

from kintsugi.errors import InvalidArgument


def same_length(field: str, length: int, count: int) -> None:
    if length != count:
        raise InvalidArgument(field, f"has {length} entries", f"must have {count}, one per id")


def unsigned(value: object, field: str, *, most: int = 2**32 - 1) -> int:
    """A plain int that the wire can carry; the server checks the tighter bound."""
    if isinstance(value, np.integer):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(field, f"is a {type(value).__name__}", "must be an integer")
    if not 0 <= value <= most:
        raise InvalidArgument(field, f"is {value}", f"must be 0 to {most}")
    return value


def bounded(value: object, field: str, most: int) -> int:
    """An integer from 1: 0 would mean "not set" on the wire."""
    checked = unsigned(value, field, most=2**64 - 1)
    if not 1 <= checked <= most:
        raise InvalidArgument(field, f"is {checked}", f"must be 1 to {most}")
    return checked


def fraction(value: object, field: str) -> float:
    """A number that is not 0, which would mean "not set" on the wire."""
    checked = number(value, field)
    if checked == 0:
        raise InvalidArgument(field, "is 0", "must be above 0")
    return checked


def number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidArgument(field, f"is a {type(value).__name__}", "must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidArgument(field, "is beyond binary64", "must be finite") from error
