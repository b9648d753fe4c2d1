"""A name that bears its meaning, for the tables that are made from names."""

from enum import StrEnum
from typing import Self


class Name(StrEnum):
    """Members are written as `NAME = value, meaning`."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member
