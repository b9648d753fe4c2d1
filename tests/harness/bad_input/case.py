"""One row of the bad-input table: a good request, the one thing that makes it bad, and the promised refusal.

Paths are written as the server writes them, with indices ("documents[0].id.text"); the field that a row stands for is
its path without them ("documents.id.text").
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
EXISTS = grpc.StatusCode.ALREADY_EXISTS

_STEP = re.compile(r"([a-z_]+)(?:\[(\d+)\])?")


@dataclass(frozen=True, slots=True)
class World:
    """What is in the cluster under test: the collection "good", another one, and tokens that the servers made."""

    token: bytes
    other_token: bytes
    other_page_token: bytes
    used_request_id: str


Value = Any | Callable[[World], Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """`violation` is the field path in the details, `says` what the message must name: the value and the bound.
    `alone`: a bulk call refuses the item alone."""

    rpc: str
    what: str
    changes: tuple[tuple[str, Value], ...]
    violation: str
    says: tuple[str, ...]
    code: grpc.StatusCode = INVALID
    alone: bool = False
    # The field that the row stands for.
    about: str = field(default="")

    def __str__(self) -> str:
        return f"{self.rpc} {self.about}: {self.what}"

    def spoil(self, request: Message, world: World) -> None:
        for path, value in self.changes:
            put(request, path, value(world) if callable(value) else value)


def bad(
    rpc: str,
    about: str,
    what: str,
    value: Value,
    violation: str,
    *says: str,
    code: grpc.StatusCode = INVALID,
    alone: bool = False,
    also: tuple[tuple[str, Value], ...] = (),
) -> Bad:
    """A row that sets the field `about`; `also` are further changes, which go with it."""
    return Bad(rpc, what, ((about, value), *also), violation, says, code, alone, without_indices(about))


def without_indices(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path)


def put(message: Message, path: str, value: Any) -> None:
    """Sets the field at a path; None clears it, a list replaces a repeated field."""
    *steps, last = _STEP.findall(path)
    for name, index in steps:
        message = getattr(message, name)
        if index:
            message = message[int(index)]
    name, index = last
    if value is None:
        message.ClearField(name)
    elif index and isinstance(value, Message):
        getattr(message, name)[int(index)].CopyFrom(value)
    elif index:
        getattr(message, name)[int(index)] = value
    elif isinstance(value, list):
        message.ClearField(name)
        getattr(message, name).extend(value)
    elif isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
