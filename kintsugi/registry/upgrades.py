"""The life of an upgrade: the table of its transitions, and what each state means for replicas and requests. Pure.

An upgrade is one record of the registry, moved by compare-and-set: whoever moves it, and however often, it takes each step
once. `moved` gives the record after an event; the collection's own record changes along in `collection_after`.
"""

from enum import StrEnum

import msgspec

from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Collection, Model, Upgrade, UpgradeState
from kintsugi.registry.transitions import step


class UpgradeEvent(StrEnum):
    # Somebody asked to begin.
    STARTED = "started"
    # Every replica serves both models, and the plan wants mapped vectors.
    OPENED_TO_MAP = "opened-to-map"
    # Every replica serves both models, and the plan maps nothing.
    OPENED = "opened"
    # Every replica serves an index of mapped vectors.
    MAPPED = "mapped"
    # Somebody asked to cut over, and the gate let it pass.
    CUT_OVER = "cut-over"
    # Somebody asked to finish.
    FINISH_ASKED = "finish-asked"
    # Old-model writes are fenced, and every document has a new vector.
    COMPLETE = "complete"
    # A document lacks a new vector: the fence came too early.
    INCOMPLETE = "incomplete"
    # Somebody asked to return.
    ROLLBACK_ASKED = "rollback-asked"
    # Every replica serves the old model alone.
    RETURNED = "returned"


_S, _E = UpgradeState, UpgradeEvent

TRANSITIONS: dict[UpgradeState, dict[UpgradeEvent, UpgradeState]] = {
    _S.PLANNED: {_E.STARTED: _S.SERVING_BOTH, _E.ROLLBACK_ASKED: _S.ROLLED_BACK},
    _S.SERVING_BOTH: {
        _E.OPENED_TO_MAP: _S.MAPPING,
        _E.OPENED: _S.BACKFILLING,
        _E.ROLLBACK_ASKED: _S.ROLLING_BACK,
    },
    _S.MAPPING: {_E.MAPPED: _S.BACKFILLING, _E.ROLLBACK_ASKED: _S.ROLLING_BACK},
    _S.BACKFILLING: {_E.CUT_OVER: _S.CUT_OVER, _E.ROLLBACK_ASKED: _S.ROLLING_BACK},
    _S.CUT_OVER: {_E.FINISH_ASKED: _S.FINISHING, _E.ROLLBACK_ASKED: _S.ROLLING_BACK},
    _S.FINISHING: {_E.COMPLETE: _S.FINISHED, _E.INCOMPLETE: _S.CUT_OVER},
    _S.FINISHED: {},
    _S.ROLLING_BACK: {_E.RETURNED: _S.ROLLED_BACK},
    _S.ROLLED_BACK: {},
}

# The states in which requests may name either model.
BOTH = frozenset({_S.SERVING_BOTH, _S.MAPPING, _S.BACKFILLING, _S.CUT_OVER})
# The states in which documents are handed out for re-embedding: to the new model, or after a rollback to the old one.
BACKFILL = frozenset({_S.SERVING_BOTH, _S.MAPPING, _S.BACKFILLING, _S.CUT_OVER, _S.ROLLING_BACK, _S.ROLLED_BACK})
# The states that another plan may replace.
OVER = frozenset({_S.FINISHED, _S.ROLLED_BACK})
_RETURNING = frozenset({_S.ROLLING_BACK, _S.ROLLED_BACK})


def moved(upgrade: Upgrade, event: UpgradeEvent, now_us: int) -> Upgrade:
    """The record after `event`; IllegalTransition when its state does not allow it."""
    state = step(TRANSITIONS, upgrade.state, event, "the upgrade")
    return msgspec.structs.replace(upgrade, state=state, changed_at_us=now_us)


def stay(upgrade: Upgrade) -> tuple[int, UpgradeState, int]:
    """Tells one stay of an upgrade in a state from every other: it may finish in vain, and finish again."""
    return upgrade.number, upgrade.state, upgrade.changed_at_us


def collection_after(collection: Collection, upgrade: Upgrade) -> Collection:
    """The collection as the state of its upgrade demands: which models there are, which one serves, which are retired, and whose
    vectors go. Those of a model that a rollback left behind stay until an upgrade to another model begins: the next one
    may be to the same model, and goes on with them."""
    old, new = upgrade.old_model, upgrade.new_model.name
    retired = set(collection.retired) - {old, new}
    models, serving = collection.models, old
    if upgrade.state in BOTH and collection.model(new) is None:
        models = (*models, upgrade.new_model)
    if upgrade.state in _RETURNING:
        retired |= {new} & {model.name for model in models}
    if upgrade.state in {_S.CUT_OVER, _S.FINISHING, _S.FINISHED}:
        serving = new
    if upgrade.state in {_S.FINISHING, _S.FINISHED}:
        retired.add(old)
    if upgrade.state is _S.PLANNED:
        retired = set(collection.retired)
    dropped = set(collection.dropped)
    if upgrade.state in BOTH:
        dropped |= retired
    if upgrade.state is _S.FINISHED:
        dropped.add(old)
    return msgspec.structs.replace(
        collection,
        models=models,
        serving_model=serving,
        retired=tuple(sorted(retired)),
        dropped=tuple(sorted(dropped)),
    )


def indexed_models(collection: Collection, upgrade: Upgrade | None) -> tuple[Model, ...]:
    """The models that a replica keeps an index of; the collection's serving model first."""
    serving = collection.model("")
    assert serving is not None
    wanted = [serving]
    if upgrade is not None and (upgrade.state in BOTH or upgrade.state is _S.FINISHING):
        wanted += [model for name in (upgrade.old_model, upgrade.new_model.name) if (model := collection.model(name))]
    return tuple({model.name: model for model in wanted}.values())


def is_mapped(upgrade: Upgrade | None) -> bool:
    """Whether the new model's index holds mapped vectors of documents that lack one of their own."""
    return upgrade is not None and upgrade.strategy is Strategy.MAP and upgrade.state in BOTH


def other_model(upgrade: Upgrade, name: str) -> str:
    """The model on the other side of the upgrade."""
    return upgrade.new_model.name if name == upgrade.old_model else upgrade.old_model
