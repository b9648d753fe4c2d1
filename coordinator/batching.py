"""Sends concurrent queries of one plan to a replica as one message.

1. A lone query leaves at once: a lane (one replica, one plan) holds queries back only while its messages are in flight.
2. A message is bounded in queries and bytes; queries leave in the order they came.
3. Every waiter gives up for himself. A message lives as long as somebody waits for it, and no longer than the last deadline.
4. A failure of a message is the failure of all its waiters, except that a message whose answer is too large is sent
   again in halves: waiters must not fail because of their company.

5. A message carries the request ids of all its queries, and the trace contexts of those that are traced.

Knows nothing about which replica is right: see fanout.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from opentelemetry.trace import Span

from coordinator import merge
from coordinator.deadline import Deadline
from coordinator.merge import Hits, Ids
from coordinator.query import Grouping
from coordinator.shards import position_message
from kintsugi.errors import ResourceExhausted
from kintsugi.filters.wire import value_message
from kintsugi.internal.v1 import shard_pb2
from kintsugi.metrics import FloatArray
from kintsugi.position import Position
from kintsugi.rpc.errors import ANSWER_TOO_LARGE
from kintsugi.telemetry import bind_request_ids, metric_names, metrics, request_id, tracing
from kintsugi.v1 import filters_pb2, search_pb2, types_pb2

_MESSAGE_QUERIES = metrics.histogram(metric_names.MESSAGE_QUERIES)


@dataclass(frozen=True, slots=True)
class LaneKey:
    """What queries must have in common to share a message."""

    address: str
    collection_uid: str
    shard: int
    model: str
    k: int
    exact: bool
    oversampling: float
    at_least: Position | None
    attributes: bool
    text: bool
    registry_revision: int
    filter: bytes = b""
    min_score: float | None = None
    group: Grouping | None = None
    has_others: bool = False
    tell_unmigrated: bool = False
    ef_search: int = 0

    def request(self, queries: bytes, count: int, others: bytes = b"") -> shard_pb2.ShardSearchRequest:
        return shard_pb2.ShardSearchRequest(
            replica=shard_pb2.ReplicaRef(collection_uid=self.collection_uid, shard=self.shard),
            model=self.model,
            queries=queries,
            count=count,
            k=self.k,
            exact=self.exact,
            oversampling=self.oversampling,
            at_least=position_message(self.at_least),
            fields=types_pb2.DocumentFields(attributes=self.attributes, text=self.text),
            registry_revision=self.registry_revision,
            filter=filters_pb2.Filter.FromString(self.filter) if self.filter else None,
            min_score=self.min_score,
            group_by=self._group_by(),
            only_groups=map(value_message, self.group.only.values) if self.group and self.group.only else (),
            other_queries=others,
            tell_unmigrated=self.tell_unmigrated,
            ef_search=self.ef_search,
        )

    def _group_by(self) -> search_pb2.GroupBy | None:
        return search_pb2.GroupBy(attribute=self.group.attribute, size=self.group.size) if self.group else None


@dataclass(frozen=True, slots=True)
class ShardAnswer:
    """One shard's hits for the queries of one waiter, and what the replica holds. `projected_model`: whose stored vectors the
    projected hits have. `others`: documents with a vector of other models that were searched. `unmigrated`: candidates that
    lack a vector of the model."""

    hits: Hits
    documents: int
    documents_with_vector: int
    projected_model: str = ""
    others: Mapping[str, int] = field(default_factory=dict)
    unmigrated: Ids | None = None


Send = Callable[[str, shard_pb2.ShardSearchRequest, Deadline], Awaitable[shard_pb2.ShardSearchResponse]]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`max_in_flight`: messages per lane. 1 makes the largest messages; 2 keeps the replica busy while answers travel."""

    max_queries: int = 256
    max_bytes: int = 4 * 2**20
    max_in_flight: int = 2


@dataclass(frozen=True, slots=True)
class BatchingStats:
    lanes: int
    queries: int
    messages: int


@dataclass(slots=True, eq=False)
class _Message:
    """A call in flight. It is cancelled when the last of its waiters is gone."""

    waiting: int
    task: asyncio.Task[None] | None = None

    def leave(self) -> None:
        self.waiting -= 1
        if self.waiting == 0 and self.task is not None:
            self.task.cancel()  # a no-op after an answer


@dataclass(slots=True, eq=False)
class _Waiter:
    queries: FloatArray
    others: FloatArray | None
    deadline: Deadline
    answer: asyncio.Future[ShardAnswer]
    request_id: str = field(default_factory=request_id)
    span: Span | None = field(default_factory=tracing.current_span)
    message: _Message | None = None


@dataclass(slots=True, eq=False)
class _Lane:
    queue: deque[_Waiter] = field(default_factory=deque)
    in_flight: set[_Message] = field(default_factory=set)


class Batcher:
    def __init__(self, send: Send, limits: BatchLimits | None = None) -> None:
        self._send = send
        self._limits = limits or BatchLimits()
        self._lanes: dict[LaneKey, _Lane] = {}
        self._queries = 0
        self._messages = 0

    def search(
        self, key: LaneKey, queries: FloatArray, deadline: Deadline, others: FloatArray | None = None
    ) -> "asyncio.Future[ShardAnswer]":
        """Searches `queries` (count x dimension, little-endian f32). `others`: the same queries by the other model of an upgrade;
        given if and only if the key says so. The answer, or the KintsugiError of the call; whoever gives up cancels it, as when
        the deadline has passed."""
        lane = self._lanes.setdefault(key, _Lane())
        waiter = _Waiter(queries, others, deadline, asyncio.get_running_loop().create_future())
        lane.queue.append(waiter)
        self._queries += len(queries)
        self._pump(key, lane)

        def settled(answer: "asyncio.Future[ShardAnswer]") -> None:
            if waiter.message is not None:
                waiter.message.leave()
            elif answer.cancelled():
                self._pump(key, lane)

        waiter.answer.add_done_callback(settled)
        return waiter.answer

    def stats(self) -> BatchingStats:
        return BatchingStats(len(self._lanes), self._queries, self._messages)

    def _pump(self, key: LaneKey, lane: _Lane) -> None:
        while lane.queue and len(lane.in_flight) < self._limits.max_in_flight:
            # What a message tells of unmigrated documents cannot be told apart by query.
            waiters = self._next_waiters(lane, most=1 if key.tell_unmigrated else self._limits.max_queries)
            if waiters:
                self._launch(key, lane, waiters)
        while lane.queue and lane.queue[0].answer.done():
            lane.queue.popleft()
        if not lane.queue and not lane.in_flight and self._lanes.get(key) is lane:
            del self._lanes[key]

    def _next_waiters(self, lane: _Lane, most: int) -> list[_Waiter]:
        """At most so many."""
        taken: list[_Waiter] = []
        queries = size = 0
        while lane.queue:
            waiter = lane.queue[0]
            if not waiter.answer.done():
                queries += len(waiter.queries)
                size += waiter.queries.nbytes + (0 if waiter.others is None else waiter.others.nbytes)
                too_much = queries > self._limits.max_queries or size > self._limits.max_bytes
                if taken and (too_much or len(taken) == most):
                    break
                taken.append(waiter)
            lane.queue.popleft()
        return taken

    def _launch(self, key: LaneKey, lane: _Lane, waiters: Sequence[_Waiter]) -> None:
        message = _Message(len(waiters))
        for waiter in waiters:
            waiter.message = message
        lane.in_flight.add(message)
        message.task = asyncio.create_task(self._deliver(key, waiters))

        def landed(_: asyncio.Task[None]) -> None:
            lane.in_flight.discard(message)
            self._pump(key, lane)

        message.task.add_done_callback(landed)

    async def _deliver(self, key: LaneKey, waiters: Sequence[_Waiter]) -> None:
        """Makes one call and settles its waiters, whatever happens."""
        try:
            response, hits = await self._call(key, waiters)
        except asyncio.CancelledError:
            for waiter in waiters:
                waiter.answer.cancel()
            raise
        except ResourceExhausted as error:
            if error.reason == ANSWER_TOO_LARGE and len(waiters) > 1:
                middle = len(waiters) // 2
                await self._deliver(key, waiters[:middle])
                await self._deliver(key, waiters[middle:])
                return
            _settle_all(waiters, error)
        except Exception as error:  # noqa: BLE001 a waiter left behind would wait for its whole deadline
            _settle_all(waiters, error)
        else:
            _settle(waiters, response, hits)

    async def _call(self, key: LaneKey, waiters: Sequence[_Waiter]) -> tuple[shard_pb2.ShardSearchResponse, Hits]:
        matrix = waiters[0].queries if len(waiters) == 1 else np.concatenate([waiter.queries for waiter in waiters])
        others = [waiter.others.tobytes() for waiter in waiters if waiter.others is not None]
        deadline = max((waiter.deadline for waiter in waiters), key=lambda each: each.at)
        self._messages += 1
        _MESSAGE_QUERIES.observe(len(matrix))
        # The task was made on behalf of whoever happened to make room.
        bind_request_ids(waiter.request_id for waiter in waiters)
        tracing.carry(tracing.span_contexts(waiter.span for waiter in waiters))
        request = key.request(matrix.tobytes(), len(matrix), b"".join(others))
        response = await self._send(key.address, request, deadline)
        return response, merge.from_shard(response, len(matrix), grouped=key.group is not None)


def _settle(waiters: Sequence[_Waiter], response: shard_pb2.ShardSearchResponse, hits: Hits) -> None:
    others = {one.model: one.documents for one in response.other_models}
    unmigrated = Ids.of_column(response.unmigrated) if response.HasField("unmigrated") else None
    start = 0
    for waiter in waiters:
        stop = start + len(waiter.queries)
        if not waiter.answer.done():
            part = hits if len(waiters) == 1 else hits.slice_queries(start, stop)
            answer = ShardAnswer(
                part,
                response.documents,
                response.documents_with_vector,
                response.projected_model,
                others,
                unmigrated,
            )
            waiter.answer.set_result(answer)
        start = stop


def _settle_all(waiters: Sequence[_Waiter], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.answer.done():
            waiter.answer.set_exception(error)
