"""Decides what a read asks of whom, from a registry view: collection, model, shards, replicas, positions. Pure.

A plan is valid for one revision of the registry. It names every shard of the collection, also those that no replica
can answer, so that nothing is left out silently. Leases play no part: a dead replica is found by calling it.
"""

from dataclasses import dataclass

from kintsugi import tokens
from kintsugi.errors import FailedPrecondition
from kintsugi.position import Position
from kintsugi.registry.records import Collection, Model, Shard, View
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


def choose_model(collection: Collection, name: str) -> Model:
    """The model a request means. A name may be left out: then it is the one that serves."""
    model = collection.model(name)
    if model is None:
        known = ", ".join(model.name for model in collection.models)
        raise FailedPrecondition(
            f"collection {collection.name} has no model {name}, its models are: {known}",
            field="vectors[0].model",
            reason="MODEL_UNKNOWN",
        )
    return model


def _plan_shard(view: View, collection: Collection, shard: Shard, token: Token | None, field: str) -> ShardPlan:
    targets = tuple(Target(member, view.members[member].address) for member in shard.in_sync if member in view.members)
    at_least = tokens.required(token, collection, shard, field) if token is not None else None
    return ShardPlan(shard.shard, targets, at_least)
