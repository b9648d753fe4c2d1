"""The lifecycle is a table."""

import itertools

import pytest

from kintsugi.lifecycle import TRANSITIONS, IllegalTransition, Lifecycle, LifecycleEvent, LifecycleState, next_state


@pytest.mark.parametrize(("state", "event"), list(itertools.product(LifecycleState, LifecycleEvent)))
def test_every_pair_moves_as_the_table_says_or_raises(state, event):
    """No event is ignored silently."""
    if event in TRANSITIONS[state]:
        assert next_state(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition, match=f"^{event.value} cannot happen while {state.value}$"):
            next_state(state, event)


def test_only_serving_is_healthy():
    """Health says SERVING in exactly one state."""
    assert [state for state in LifecycleState if state.is_serving] == [LifecycleState.SERVING]


def test_every_state_can_be_stopped():
    """STOPPED is reachable from everywhere, so a process can always end in order."""
    for state in LifecycleState:
        reached = {state}
        while grown := {TRANSITIONS[a][e] for a in reached for e in TRANSITIONS[a]} - reached:
            reached |= grown
        assert LifecycleState.STOPPED in reached


def test_illegal_event_changes_nothing_and_tells_nobody():
    """Observers hear of real changes only."""
    lifecycle, heard = Lifecycle(), []
    lifecycle.subscribe(heard.append)
    lifecycle.advance(LifecycleEvent.OPENED)
    with pytest.raises(IllegalTransition):
        lifecycle.advance(LifecycleEvent.DRAINED)
    assert lifecycle.state is LifecycleState.REPLAYING
    assert heard == [LifecycleState.REPLAYING]
