"""The life of a server process as a table: what each state means, how it is left, and whether health says SERVING.

Everything that affects lifecycle states must live here. Pure: knows nothing about gRPC or signals.
"""

from collections.abc import Callable
from enum import StrEnum


class LifecycleState(StrEnum):
    # Opens files, connects, reads the registry. Left by OPENED.
    STARTING = "STARTING"
    # Catches up with what happened while it was away. Left by CAUGHT_UP.
    REPLAYING = "REPLAYING"
    # Takes requests. Left by STOP.
    SERVING = "SERVING"
    # Takes no new requests, finishes those in flight, saves. Left by DRAINED.
    DRAINING = "DRAINING"
    # Nothing runs any more. Final.
    STOPPED = "STOPPED"

    @property
    def is_serving(self) -> bool:
        """Whether gRPC health reports SERVING; NOT_SERVING otherwise."""
        return self is LifecycleState.SERVING


class LifecycleEvent(StrEnum):
    OPENED = "opened"
    CAUGHT_UP = "caught-up"
    # A signal, or a failure that ends the process.
    STOP = "stop"
    DRAINED = "drained"


TRANSITIONS: dict[LifecycleState, dict[LifecycleEvent, LifecycleState]] = {
    LifecycleState.STARTING: {
        LifecycleEvent.OPENED: LifecycleState.REPLAYING,
        LifecycleEvent.STOP: LifecycleState.DRAINING,
    },
    LifecycleState.REPLAYING: {
        LifecycleEvent.CAUGHT_UP: LifecycleState.SERVING,
        LifecycleEvent.STOP: LifecycleState.DRAINING,
    },
    LifecycleState.SERVING: {LifecycleEvent.STOP: LifecycleState.DRAINING},
    LifecycleState.DRAINING: {LifecycleEvent.DRAINED: LifecycleState.STOPPED},
    LifecycleState.STOPPED: {},
}


class IllegalTransition(ValueError):
    """The event cannot happen in this state."""


def next_state(state: LifecycleState, event: LifecycleEvent) -> LifecycleState:
    try:
        return TRANSITIONS[state][event]
    except KeyError as error:
        raise IllegalTransition(f"{event.value} cannot happen while {state.value}") from error


class Lifecycle:
    """The present state, and whoever wants to know of changes. An illegal event raises and changes nothing."""

    def __init__(self) -> None:
        self._state = LifecycleState.STARTING
        self._observers: list[Callable[[LifecycleState], None]] = []

    @property
    def state(self) -> LifecycleState:
        return self._state

    def advance(self, event: LifecycleEvent) -> LifecycleState:
        self._state = next_state(self._state, event)
        for observer in self._observers:
            observer(self._state)
        return self._state

    def subscribe(self, observer: Callable[[LifecycleState], None]) -> None:
        self._observers.append(observer)
