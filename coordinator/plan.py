"""Decides what a read asks of whom, from a registry view: collection, model, shards, replicas, positions. Pure.

A plan is valid for one revision of the registry. It names every shard of the collection, also those that no replica
can answer, so that nothing is left out silently. Leases play no part: a dead replica is found by calling it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kintsugi import tokens
from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.position import Position
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Collection, Model, Shard, Upgrade, View
from kintsugi.registry.upgrades import BOTH
from kintsugi.tokens import Token


@dataclass(frozen=True, slots=True)
class Target:
    """A replica that may answer."""

    member: str
    address: str


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Which replicas may answer for a shard, and what they must have seen."""

    shard: int
    targets: tuple[Target, ...]
    at_least: Position | None


@dataclass(frozen=True, slots=True)
class ReadPlan:
    collection: Collection
    revision: int
    shards: tuple[ShardPlan, ...]


def plan_read(view: View, collection: Collection, token: Token | None, field: str = "at_least") -> ReadPlan:
    """Raises InvalidArgument for a token of another collection, Aborted when recovery discarded a write of it."""
    shards = tuple(_plan_shard(view, collection, shard, token, field) for shard in view.shards_of(collection))
    return ReadPlan(collection, view.snapshot.revision, shards)


@dataclass(frozen=True, slots=True)
class Asked:
    """The model that is searched, and the place of its query vectors in the request; the other one, whose vectors were given
    as well, with theirs."""

    model: Model
    place: int
    other: Model | None = None
    other_place: int = 0


def choose_models(view: View, collection: Collection, names: Sequence[str]) -> Asked:
    """What a request with query vectors of one model, or of two, searches. Of the two models of an upgrade it is the new one;
    beside a live model, vectors of a retired one are left out: a client that gives both must not fail at the moment when the
    upgrade ends."""
    upgrade = view.upgrades.get(collection.uid)
    if upgrade is not None and upgrade.state not in BOTH:
        upgrade = None
    if len(names) == 1:
        return Asked(_sufficient(collection, choose_model(collection, names[0]), upgrade), 0)
    models = [_declared(collection, name, place) for place, name in enumerate(names)]
    if models[0] == models[1]:
        raise InvalidArgument("vectors[1].model", f"is {models[1].name}", "must be another one than that of vectors[0]")
    live = [place for place, model in enumerate(models) if model.name not in collection.retired]
    if len(live) < len(models) or upgrade is None:
        place = live[0] if live else 0
        return Asked(_sufficient(collection, choose_model(collection, names[place]), upgrade), place)
    place = [model.name for model in models].index(upgrade.new_model.name)
    return Asked(models[place], place, models[1 - place], 1 - place)


def choose_model(collection: Collection, name: str, place: int = 0) -> Model:
    """The model a request means. A name may be left out: then it is the one that serves."""
    model = _declared(collection, name, place)
    if model.name in collection.retired:
        raise FailedPrecondition(
            f"model {model.name} of collection {collection.name} is retired, its model is {collection.serving_model}",
            field=f"vectors[{place}].model",
            reason="MODEL_RETIRED",
        )
    return model


def _declared(collection: Collection, name: str, place: int) -> Model:
    model = collection.model(name)
    if model is None:
        known = ", ".join(model.name for model in collection.models)
        raise FailedPrecondition(
            f"collection {collection.name} has no model {name}, its models are: {known}",
            field=f"vectors[{place}].model",
            reason="MODEL_UNKNOWN",
        )
    return model


def _sufficient(collection: Collection, model: Model, upgrade: Upgrade | None) -> Model:
    """The model, if its query vectors are enough to search it."""
    if upgrade is not None and upgrade.strategy is Strategy.BOTH and model.name == upgrade.new_model.name:
        raise FailedPrecondition(
            f"collection {collection.name} is upgraded from model {upgrade.old_model} to {model.name} with the vectors of both: "
            f"a search of {model.name} needs a query vector of {upgrade.old_model} as well",
            field="vectors",
            reason="BOTH_VECTORS_NEEDED",
        )
    return model


def _plan_shard(view: View, collection: Collection, shard: Shard, token: Token | None, field: str) -> ShardPlan:
    targets = tuple(Target(member, view.members[member].address) for member in shard.in_sync if member in view.members)
    at_least = tokens.required(token, collection, shard, field) if token is not None else None
    return ShardPlan(shard.shard, targets, at_least)
