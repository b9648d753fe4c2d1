"""The life of an upgrade, and what its states mean."""

import itertools

import msgspec
import pytest

from kintsugi.metrics import Metric
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Collection, Model, Upgrade, UpgradeState, decode_record, encode_record, field_of
from kintsugi.registry.transitions import IllegalTransition
from kintsugi.registry.upgrades import (
    BOTH,
    OVER,
    TRANSITIONS,
    UpgradeEvent,
    collection_after,
    indexed_models,
    is_mapped,
    moved,
)

OLD, NEW = Model(1, "old", 4, Metric.COSINE), Model(2, "new", 6, Metric.COSINE)
COLLECTION = Collection("u", "docs", 2, 1, Metric.COSINE, "f32", (OLD,), "old", 1)
UPGRADE = Upgrade(
    "u", 1, "old", NEW, UpgradeState.PLANNED, Strategy.MAP, Calibration.RAW, "b", "m", "r", "a", "p", 0.99, 0.95, 1, 1
)


def at(state, **changes):
    return msgspec.structs.replace(UPGRADE, state=state, **changes)


def names(models):
    return tuple(model.name for model in models)


def test_every_state_can_be_reached_and_only_ends_have_no_way_on():
    """Each state follows from the plan; the finished and the returned stay what they are."""
    reached, waiting = set(), [UpgradeState.PLANNED]
    while waiting:
        state = waiting.pop()
        reached.add(state)
        waiting += [after for after in TRANSITIONS[state].values() if after not in reached]
    assert reached == set(UpgradeState)
    assert {state for state, exits in TRANSITIONS.items() if not exits} == OVER


@pytest.mark.parametrize(("state", "event"), list(itertools.product(UpgradeState, UpgradeEvent)))
def test_a_step_is_taken_as_the_table_says_or_refused(state, event):
    """Whoever asks for what the table does not have is refused, and nothing changes."""
    after = TRANSITIONS[state].get(event)
    if after is None:
        with pytest.raises(IllegalTransition, match=f"^the upgrade is {state}, which {event} does not change$"):
            moved(at(state), event, 5)
    else:
        assert moved(at(state), event, 5) == at(after, changed_at_us=5)


def test_every_state_before_finishing_can_return():
    """Nothing is burnt before the old vectors are about to go."""
    for state in BOTH | {UpgradeState.PLANNED}:
        assert UpgradeEvent.ROLLBACK_ASKED in TRANSITIONS[state]
    assert UpgradeEvent.ROLLBACK_ASKED not in TRANSITIONS[UpgradeState.FINISHING]


@pytest.mark.parametrize(
    ("state", "models", "serving", "live", "indexed", "mapped"),
    [
        (UpgradeState.PLANNED, ("old",), "old", ("old",), ("old",), False),
        (UpgradeState.SERVING_BOTH, ("old", "new"), "old", ("old", "new"), ("old", "new"), True),
        (UpgradeState.MAPPING, ("old", "new"), "old", ("old", "new"), ("old", "new"), True),
        (UpgradeState.BACKFILLING, ("old", "new"), "old", ("old", "new"), ("old", "new"), True),
        (UpgradeState.CUT_OVER, ("old", "new"), "new", ("old", "new"), ("new", "old"), True),
        (UpgradeState.FINISHING, ("old", "new"), "new", ("new",), ("new", "old"), False),
        (UpgradeState.FINISHED, ("old", "new"), "new", ("new",), ("new",), False),
        (UpgradeState.ROLLING_BACK, ("old", "new"), "old", ("old",), ("old",), False),
        (UpgradeState.ROLLED_BACK, ("old", "new"), "old", ("old",), ("old",), False),
    ],
)
def test_what_a_state_means_for_requests_and_replicas(state, models, serving, live, indexed, mapped):
    """Which models there are, which one serves, which take requests, and which are indexed."""
    before = COLLECTION if state is UpgradeState.PLANNED else msgspec.structs.replace(COLLECTION, models=(OLD, NEW))
    after = collection_after(before, at(state))
    assert (names(after.models), after.serving_model, names(after.live_models)) == (models, serving, live)
    assert names(indexed_models(after, at(state))) == indexed
    assert is_mapped(at(state)) == mapped
    assert after.dropped == (("old",) if state is UpgradeState.FINISHED else ())


def test_a_plan_that_is_given_up_leaves_the_collection_as_it_was():
    """A model that never took a request is not even declared."""
    assert collection_after(COLLECTION, at(UpgradeState.ROLLED_BACK)) == COLLECTION
    assert collection_after(COLLECTION, at(UpgradeState.PLANNED)) == COLLECTION


@pytest.mark.parametrize("state", sorted(UpgradeState))
def test_vectors_of_an_abandoned_model_stay_until_an_upgrade_to_another_begins(state):
    """Neither the rollback nor the next plan drops them; from its start on nothing brings them back."""
    left = Model(3, "left", 4, Metric.COSINE)
    before = msgspec.structs.replace(COLLECTION, models=(OLD, NEW, left), retired=("left",))
    after = collection_after(before, at(state))
    gone = ("left",) if state in BOTH else ()
    assert after.dropped == (("old",) if state is UpgradeState.FINISHED else gone)
    assert "left" in after.retired
    started = collection_after(before, at(UpgradeState.SERVING_BOTH))
    assert "left" in collection_after(started, at(state)).dropped


@pytest.mark.parametrize("state", sorted(UpgradeState))
def test_an_upgrade_to_the_abandoned_model_goes_on_with_its_vectors(state):
    """They are not dropped in any state of it."""
    before = msgspec.structs.replace(COLLECTION, models=(OLD, NEW), retired=("new",))
    assert "new" not in collection_after(before, at(state)).dropped


def test_a_start_declares_the_new_model():
    """From then on it has its number, which is never reused."""
    assert collection_after(COLLECTION, at(UpgradeState.SERVING_BOTH)).models == (OLD, NEW)


def test_a_record_survives_the_registry():
    """What is read is what was written."""
    assert field_of(UPGRADE) == "upgrade/u"
    assert decode_record("upgrade/u", encode_record(UPGRADE)) == UPGRADE


def test_an_upgrade_names_its_artifacts():
    """Those that it has."""
    assert UPGRADE.artifacts == ("b", "m", "r", "a", "p")
    assert at(UpgradeState.PLANNED, gallery_map="").artifacts == ("b", "r", "a", "p")
