"""The story of a pull of the backfill: check, split over the shards, ask one replica of each, interleave.

1. Every shard gets its part of a pull; what some shards lack, others give. The most urgent of each shard come first.
2. The same replica of a shard is asked as long as it answers, the first in sync: leases are its own. Another one may hand out
   what the first has handed out, which is harmless.
3. A shard without an answer is left out of a pull that finds documents elsewhere; else its error is the answer: an empty
   answer means that nothing is left, or all of it leased.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from coordinator.deadline import Deadline
from coordinator.plan import ShardPlan, plan_read
from coordinator.shards import ShardCalls
from coordinator.views import Views
from kintsugi import columns, ids, limits
from kintsugi.errors import FailedPrecondition, InvalidArgument, KintsugiError, NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.registry import upgrades
from kintsugi.registry.records import Collection, Upgrade, UpgradeState, View
from kintsugi.v1 import types_pb2, upgrades_pb2

# So much of the time that is left may one replica take when there are others.
_PATIENCE = 0.4
_RETURNING = frozenset({UpgradeState.ROLLING_BACK, UpgradeState.ROLLED_BACK})


@dataclass(slots=True)
class _Pull:
    """What a pull has so far, by shard. `first` are the ids that the worker wants before others."""

    model: str
    limit: int
    lease_s: float
    first: dict[int, list[bytes]]
    documents: dict[int, list[upgrades_pb2.DocumentToEmbed]] = field(default_factory=dict)
    remaining: dict[int, int] = field(default_factory=dict)
    failures: dict[int, KintsugiError] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        return self.limit - sum(map(len, self.documents.values()))

    def take(self, shard: int, answer: shard_pb2.NextShardDocumentsResponse) -> None:
        self.documents.setdefault(shard, []).extend(answer.documents)
        self.remaining[shard] = answer.remaining
        self.first.pop(shard, None)


class NextDocuments:
    def __init__(self, views: Views, calls: ShardCalls) -> None:
        self._views = views
        self._calls = calls
        self._turn = 0

    async def next(
        self, request: upgrades_pb2.NextDocumentsRequest, deadline: Deadline
    ) -> upgrades_pb2.NextDocumentsResponse:
        limit, lease_s, first = _checked(request)
        view, collection = await self._views.collection(request.collection, deadline)
        model = handed_out(collection, view.upgrades.get(collection.uid))
        if model is None:
            # Another coordinator may have moved it a moment ago.
            view = await self._views.refreshed(deadline)
            model = required(collection, view.upgrades.get(collection.uid))
        pull = _Pull(model, limit, lease_s, _by_shard(first[:limit], collection.shards))
        await self._fill(pull, view, collection, deadline)
        if not any(pull.documents.values()) and pull.failures:
            raise _failed(pull.failures)
        return upgrades_pb2.NextDocumentsResponse(
            documents=_interleaved(pull.documents, first),
            model=model,
            remaining=sum(pull.remaining.values()),
            shards_total=collection.shards,
            shards_answered=len(pull.remaining),
        )

    async def _fill(self, pull: _Pull, view: View, collection: Collection, deadline: Deadline) -> None:
        """Asks all shards for their part, then those that gave all they were asked for, until nobody has more."""
        asked = list(plan_read(view, collection, None).shards)
        self._turn += 1
        at = self._turn % len(asked)
        asked = asked[at:] + asked[:at]
        while asked and (pull.missing or not pull.remaining) and not deadline.passed:
            parts = parts_of(pull.missing, [len(pull.first.get(shard.shard, ())) for shard in asked])
            # The first round asks every shard, if only for what remains there.
            wanted = [(shard, part) for shard, part in zip(asked, parts, strict=True) if part or not pull.remaining]
            before = {shard.shard: len(pull.documents.get(shard.shard, ())) for shard, _ in wanted}
            async with asyncio.TaskGroup() as group:
                for shard, part in wanted:
                    group.create_task(self._ask(pull, collection, shard, part, deadline))
            asked = [
                shard
                for shard, part in wanted
                if part and len(pull.documents.get(shard.shard, ())) - before[shard.shard] >= part
            ]

    async def _ask(self, pull: _Pull, collection: Collection, shard: ShardPlan, part: int, deadline: Deadline) -> None:
        """The documents of one shard, by its first replica that answers."""
        message = shard_pb2.NextShardDocumentsRequest(
            replica=shard_pb2.ReplicaRef(collection_uid=collection.uid, shard=shard.shard),
            model=pull.model,
            limit=part,
            lease_s=pull.lease_s,
            first=columns.pack_encoded(pull.first.get(shard.shard, ())),
        )
        error: KintsugiError = Unavailable(f"shard {shard.shard} has no replica in sync", reason="NO_REPLICA")
        for target in shard.targets:
            last = target is shard.targets[-1]
            patience_s = deadline.remaining_s * (1.0 if last else _PATIENCE)
            try:
                until = Deadline.after(patience_s, deadline.clock)
                pull.take(shard.shard, await self._calls.next_documents(target.address, message, until))
            except KintsugiError as failed:
                error = failed.saying(f"shard {shard.shard}: {target.member}: {failed.message}")
                continue
            pull.failures.pop(shard.shard, None)
            return
        pull.failures[shard.shard] = error


def handed_out(collection: Collection, upgrade: Upgrade | None) -> str | None:
    """The model whose vectors documents are handed out for; None when the upgrade hands out none."""
    if upgrade is None or upgrade.paused or upgrade.state not in upgrades.BACKFILL:
        return None
    name = upgrade.old_model if upgrade.state in _RETURNING else upgrade.new_model.name
    return None if collection.model(name) is None else name


def required(collection: Collection, upgrade: Upgrade | None) -> str:
    """As handed_out; raises why there is none."""
    if upgrade is None:
        raise NotFound(f"collection {collection.name} has no upgrade", field="collection", reason="UPGRADE_NOT_FOUND")
    if upgrade.paused:
        raise FailedPrecondition(
            f"the upgrade of {collection.name} is paused, resume it first", reason="UPGRADE_PAUSED"
        )
    if upgrade.state not in upgrades.BACKFILL:
        raise FailedPrecondition(
            f"the upgrade of {collection.name} is {upgrade.state}, which hands out no documents", reason="UPGRADE_STATE"
        )
    model = handed_out(collection, upgrade)
    if model is None:
        raise FailedPrecondition(
            f"collection {collection.name} does not have the model of its upgrade yet", reason="UPGRADE_STATE"
        )
    return model


def parts_of(limit: int, at_least: Sequence[int]) -> list[int]:
    """Splits a limit over shards evenly, earlier ones get the rest; each at least what it has of the wanted ones, of which
    there are no more than the limit."""
    parts = list(at_least)
    open_ = limit - sum(parts)
    while open_ > 0:
        level = min(parts)
        lowest = [at for at, part in enumerate(parts) if part == level]
        higher = min((part for part in parts if part > level), default=level + -(-open_ // len(lowest)))
        step = min(higher - level, max(1, open_ // len(lowest)))
        for at in lowest[:open_]:
            parts[at] += step
            open_ -= step
    return parts


def _checked(request: upgrades_pb2.NextDocumentsRequest) -> tuple[int, float, list[bytes]]:
    """Limit, lease and wanted ids within their bounds."""
    limit = request.limit or limits.DEFAULT_PULL
    if limit > limits.MAX_BATCH_ITEMS:
        raise InvalidArgument("limit", f"is {limit}", f"must be 1 to {limits.MAX_BATCH_ITEMS}")
    lease_s = request.lease_s or limits.DEFAULT_LEASE_S
    if not limits.MIN_LEASE_S <= lease_s <= limits.MAX_LEASE_S:
        bound = f"must be {limits.MIN_LEASE_S:g} to {limits.MAX_LEASE_S:g}"
        raise InvalidArgument("lease_s", f"is {lease_s:g}", bound)
    count = columns.id_count(request.first)
    if count > limits.MAX_BATCH_ITEMS:
        raise InvalidArgument("first", f"has {count} ids", f"must have at most {limits.MAX_BATCH_ITEMS}")
    return limit, lease_s, list(dict.fromkeys(columns.unpack_encoded(request.first, "first")))


def _by_shard(encoded: Iterable[bytes], shards: int) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for one in encoded:
        found.setdefault(ids.shard_of_encoded(one, shards), []).append(one)
    return found


def _interleaved(
    by_shard: Mapping[int, Sequence[upgrades_pb2.DocumentToEmbed]], first: Sequence[bytes]
) -> list[upgrades_pb2.DocumentToEmbed]:
    """The wanted ones, then the most urgent of each shard, and so on; cut before the message grows too large. What is cut
    comes again when its lease is over."""
    wanted = {one: place for place, one in enumerate(first)}
    mixed = [one for one in chain.from_iterable(zip_longest(*by_shard.values())) if one is not None]
    mixed.sort(key=lambda one: wanted.get(_encoded_id(one.id), len(wanted)))
    size = 0
    for place, document in enumerate(mixed):
        size += document.ByteSize()
        if place and size > limits.MAX_PAGE_BYTES:
            return mixed[:place]
    return mixed


def _encoded_id(message: types_pb2.DocumentId) -> bytes:
    return ids.encode(columns.unpack_id(message, "documents.id"))


def _failed(failures: Mapping[int, KintsugiError]) -> KintsugiError:
    """The first failure, in words all of them."""
    first = failures[min(failures)]
    return Unavailable("; ".join(error.message for _, error in sorted(failures.items())), reason=first.reason)
