"""Decides whether the shards that answered are enough, and reports what a response really saw.

Nothing is left out silently: a missing shard is an error that names it, or an entry in the coverage.
"""

import math
from collections.abc import Callable, Mapping

from coordinator.batching import ShardAnswer
from coordinator.fanout import Gathered
from kintsugi.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    KintsugiError,
    ResourceExhausted,
    StalePlan,
    Unavailable,
)
from kintsugi.registry.records import Collection, Model
from kintsugi.rpc.errors import code_name
from kintsugi.v1 import types_pb2

# min_coverage travels as f32: 0.7 of 10 shards must mean 7 and not 8.
_ROUNDING = 1e-6


def require(
    collection: Collection, shards: int, failures: Mapping[int, KintsugiError], min_coverage: float = 1.0
) -> None:
    """Raises unless enough of the `shards` that were asked answered.

    The error names the first missing shard and why it is missing. What the request itself did wrong (a discarded
    write, a bad field) is an error however many shards answered."""
    if not failures:
        return
    shard, error = _decisive(failures)
    ours = isinstance(error, Aborted | InvalidArgument | FailedPrecondition) and not isinstance(error, StalePlan)
    needed = max(1, math.ceil(min_coverage * shards - _ROUNDING))
    if not ours and shards - len(failures) >= needed:
        return
    others = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
    raise _named(f"shard {shard}{others} of collection {collection.name} did not answer: {error.message}", error)


def report(
    collection: Collection,
    model: Model,
    gathered: Gathered[ShardAnswer],
    last_known: Callable[[str, int], int],
) -> types_pb2.Coverage:
    covered = sum(answer.documents for answer in gathered.answers.values())
    missing = sum(last_known(collection.uid, shard) for shard in gathered.failures)
    with_vector = {model.name: 0}
    for answer in gathered.answers.values():
        with_vector[model.name] += answer.documents_with_vector
        for other, documents in answer.others.items():
            with_vector[other] = with_vector.get(other, 0) + documents
    return types_pb2.Coverage(
        shards_total=collection.shards,
        shards_answered=len(gathered.answers),
        documents_total=covered + missing,
        documents_covered=covered,
        models=[types_pb2.ModelCoverage(model=name, documents=count) for name, count in with_vector.items()],
        failures=[
            types_pb2.ShardFailure(shard=shard, code=code_name(error), message=error.message)
            for shard, error in sorted(gathered.failures.items())
        ],
    )


def _decisive(failures: Mapping[int, KintsugiError]) -> tuple[int, KintsugiError]:
    """The failure to tell: one that is the request's own fault before one that time may heal."""

    def weight(item: tuple[int, KintsugiError]) -> tuple[bool, int]:
        shard, error = item
        return (not isinstance(error, Aborted | InvalidArgument | FailedPrecondition), shard)

    return min(failures.items(), key=weight)


def _named(message: str, error: KintsugiError) -> KintsugiError:
    """The error of the whole read: lateness and overload stay what they are, every other missing shard is UNAVAILABLE."""
    if isinstance(error, Aborted):
        return Aborted(message, field=error.field, reason=error.reason)
    if isinstance(error, InvalidArgument) or (
        isinstance(error, FailedPrecondition) and not isinstance(error, StalePlan)
    ):
        return error
    if isinstance(error, DeadlineExceeded):
        return DeadlineExceeded(message)
    if isinstance(error, ResourceExhausted):
        return ResourceExhausted(message, reason=error.reason, retry_delay_s=error.retry_delay_s)
    return Unavailable(message, reason="SHARD_UNAVAILABLE")
