"""Decides which shard servers get the replicas of a new collection. Pure.

Guarantees that the replicas of a shard stand on distinct members and that loads differ as little as they can: each
replica goes to the member that holds the fewest, ties by name.
"""

from collections.abc import Iterable, Mapping

from kintsugi.errors import FailedPrecondition
from kintsugi.registry.records import View


def replicas_held(view: View, members: Iterable[str]) -> dict[str, int]:
    """How many replicas each of these members holds."""
    return {member: len(view.replicas_on(member)) for member in members}


def place(shards: int, replicas: int, held: Mapping[str, int]) -> list[tuple[str, ...]]:
    """The members of each shard. `held` names the candidates. Raises FailedPrecondition when they are too few."""
    if len(held) < replicas:
        raise FailedPrecondition(
            f"replicas is {replicas}, only {len(held)} shard servers are alive, each replica needs one of its own",
            field="spec.replicas",
            reason="TOO_FEW_SHARD_SERVERS",
        )
    load = dict(held)
    placed = []
    for _ in range(shards):
        chosen = sorted(load, key=lambda member: (load[member], member))[:replicas]
        for member in chosen:
            load[member] += 1
        placed.append(tuple(chosen))
    return placed
