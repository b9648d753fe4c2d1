"""The life of an index version, from its build to its retirement: the transitions, and the swap that replaces one by
another. Pure. A version never returns from RETIRED; what must serve again is built again under a new number. A replica
that is opened anew begins with the version of its checkpoint, whatever became of it before."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from kintsugi.registry.records import IndexVersion, IndexVersionState
from kintsugi.registry.transitions import step


class IndexVersionEvent(StrEnum):
    # Its build began.
    BEGUN = "begun"
    # It was loaded from a checkpoint when its replica was opened.
    LOADED = "loaded"
    # The build reached the journal's end and passed its check.
    BUILT = "built"
    # It takes over the searches.
    SWAPPED_IN = "swapped-in"
    # Another version took over.
    SWAPPED_OUT = "swapped-out"
    # It did not pass its check.
    FAILED = "failed"
    # Another encoding is wanted before it was built.
    ABANDONED = "abandoned"


# How a version comes into being.
ENTRIES: dict[IndexVersionEvent, IndexVersionState] = {
    IndexVersionEvent.BEGUN: IndexVersionState.BUILDING,
    IndexVersionEvent.LOADED: IndexVersionState.SERVING,
}

TRANSITIONS: dict[IndexVersionState, dict[IndexVersionEvent, IndexVersionState]] = {
    IndexVersionState.BUILDING: {
        IndexVersionEvent.BUILT: IndexVersionState.READY,
        IndexVersionEvent.FAILED: IndexVersionState.RETIRED,
        IndexVersionEvent.ABANDONED: IndexVersionState.RETIRED,
    },
    IndexVersionState.READY: {IndexVersionEvent.SWAPPED_IN: IndexVersionState.SERVING},
    IndexVersionState.SERVING: {IndexVersionEvent.SWAPPED_OUT: IndexVersionState.RETIRED},
    IndexVersionState.RETIRED: {},
}


def next_state(state: IndexVersionState, event: IndexVersionEvent) -> IndexVersionState:
    return step(TRANSITIONS, state, event, "an index version")


def moved(version: IndexVersion, event: IndexVersionEvent) -> IndexVersion:
    """The version's record after `event`; IllegalTransition when its state does not allow it."""
    return msgspec.structs.replace(version, state=next_state(version.state, event))


def swap(versions: Iterable[IndexVersion], number: int) -> list[IndexVersion]:
    """The records that change when version `number` takes over from the one that serves the same model on the same
    replica. `versions` are those of one replica."""
    present = list(versions)
    ready = next(version for version in present if version.version == number)
    replaced = [
        moved(version, IndexVersionEvent.SWAPPED_OUT)
        for version in present
        if version.state is IndexVersionState.SERVING and version.model == ready.model
    ]
    return [moved(ready, IndexVersionEvent.SWAPPED_IN), *replaced]
