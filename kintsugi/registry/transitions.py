"""What the registry's state machines share: a table of state x event, and one way to step through it. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from kintsugi.errors import FailedPrecondition

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


class IllegalTransition(FailedPrecondition):
    """The table has no such transition; nothing changed."""

    reason = "ILLEGAL_TRANSITION"


def step(table: Mapping[State, Mapping[Event, State]], state: State, event: Event, what: str) -> State:
    """The state after `event`; IllegalTransition naming `what` when the table has none."""
    after = table[state].get(event)
    if after is None:
        raise IllegalTransition(f"{what} is {state}, which {event} does not change")
    return after
