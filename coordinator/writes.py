"""The story of a write: validate, partition, log, acknowledge, answer.

1. Nothing is written before all of the request is known to be valid.
2. Each shard's part is logged whole, once per request id, through whichever coordinator the request is repeated.
3. A write that a fenced log takes for out of date is validated again with the present registry, once.
4. An answer never claims more than the replicas said.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from coordinator import validate
from coordinator.acks import Acknowledgements
from coordinator.answers import PartOutcome, answer, answer_per_item
from coordinator.deadline import Deadline
from coordinator.group_commit import GroupCommit
from coordinator.operations import Level, Part, Write
from coordinator.shard_log import ShardLogs
from coordinator.views import Views
from kintsugi.errors import FailedPrecondition, KintsugiError
from kintsugi.log.append import REGISTRY_BEHIND, AppendRequest
from kintsugi.registry.records import Collection
from kintsugi.telemetry import metric_names, metrics
from kintsugi.telemetry.trace_names import SpanEvent
from kintsugi.telemetry.tracing import Stages
from kintsugi.v1 import documents_pb2, upgrades_pb2

Request = TypeVar("Request", documents_pb2.UpsertRequest, documents_pb2.DeleteRequest, upgrades_pb2.PutVectorsRequest)

# Larger requests are validated in a thread, so that the event loop goes on.
_INLINE_BYTES = 32 * 2**10
# Left of a call's deadline for the answer to travel.
_ANSWER_RESERVE_S = 0.05

_ACKNOWLEDGEMENT = metrics.histogram(metric_names.ACKNOWLEDGEMENT_SECONDS)
_ACKNOWLEDGED = {level: _ACKNOWLEDGEMENT.labels(level.value) for level in Level}


class Writes:
    """`now_us` is the wall clock in microseconds since the Unix epoch."""

    def __init__(
        self,
        views: Views,
        logs: ShardLogs,
        group_commit: GroupCommit,
        acknowledgements: Acknowledgements,
        now_us: Callable[[], int],
    ) -> None:
        self._views = views
        self._logs = logs
        self._group_commit = group_commit
        self._acknowledgements = acknowledgements
        self._now_us = now_us
        self._validator = ThreadPoolExecutor(1, "validate")

    @property
    def pending_bytes(self) -> int:
        return self._group_commit.pending_bytes

    async def upsert(self, request: documents_pb2.UpsertRequest, deadline: Deadline) -> documents_pb2.WriteResponse:
        return answer(*await self.run(validate.upsert, request, deadline))

    async def delete(self, request: documents_pb2.DeleteRequest, deadline: Deadline) -> documents_pb2.WriteResponse:
        return answer(*await self.run(validate.delete, request, deadline))

    async def validated_chunk(self, request: documents_pb2.UpsertRequest, deadline: Deadline) -> Write:
        """The first half of a bulk chunk; raises for what concerns the whole call."""
        return await self._validated(validate.bulk_upsert, request, deadline)

    async def write_chunk(self, write: Write, deadline: Deadline) -> documents_pb2.WriteResponse:
        """The second half; every trouble is told per item."""
        try:
            outcomes = await self._written(write, deadline)
        except FailedPrecondition:
            raise
        except KintsugiError as error:
            outcomes = [PartOutcome(part, error=error) for part in write.parts()]
        return answer_per_item(write, outcomes)

    async def write(self, write: Write, deadline: Deadline) -> list[PartOutcome]:
        """Logs what was validated elsewhere, and tells what became of each shard's part. Raises when none was begun."""
        return await self._written(write, deadline)

    async def run(
        self, check: Callable[[Request, Collection], Write], request: Request, deadline: Deadline
    ) -> tuple[Write, list[PartOutcome]]:
        """A whole unary write, up to what became of each shard's part: once more when the registry had moved on beneath it."""
        write = await self._validated(check, request, deadline)
        outcomes = await self._written(write, deadline)
        if write.revision is not None and any(map(_is_behind, outcomes)):
            await self._views.refreshed(deadline, revision=write.revision + 1)
            # Shards that took their part recognise it by the request id.
            request.request_id = write.options.request_id
            try:
                write = await self._validated(check, request, deadline)
                outcomes = await self._written(write, deadline)
            except KintsugiError as error:
                outcomes = [replace(one, error=error) if _is_behind(one) else one for one in outcomes]
        return write, outcomes

    async def close(self) -> None:
        await self._group_commit.close()
        self._validator.shutdown(wait=False, cancel_futures=True)

    async def _validated(
        self, check: Callable[[Request, Collection], Write], request: Request, deadline: Deadline
    ) -> Write:
        view, collection = await self._views.collection(request.collection, deadline)
        if request.ByteSize() <= _INLINE_BYTES:
            write = check(request, collection)
        else:
            running = asyncio.get_running_loop()
            write = await running.run_in_executor(self._validator, check, request, collection)
        return replace(write, revision=view.snapshot.revision)

    async def _written(self, write: Write, deadline: Deadline) -> list[PartOutcome]:
        parts = write.parts()
        for part in parts:
            self._check_shard(write, part)
        written_at_us = self._now_us()
        deadline = deadline.earlier_by(_ANSWER_RESERVE_S)
        return await asyncio.gather(*(self._write_part(write, part, written_at_us, deadline) for part in parts))

    def _check_shard(self, write: Write, part: Part) -> None:
        _, shard = self._logs.writable((write.collection.uid, part.shard))
        wanted = write.options.durable_replicas
        if write.options.level is not Level.LOGGED and wanted > len(shard.in_sync):
            raise FailedPrecondition(
                f"durable_replicas is {wanted}, shard {part.shard} has {len(shard.in_sync)} replicas in sync",
                field="durable_replicas",
                reason="TOO_FEW_REPLICAS",
            )

    async def _write_part(self, write: Write, part: Part, written_at_us: int, deadline: Deadline) -> PartOutcome:
        key = (write.collection.uid, part.shard)
        request = AppendRequest(write.options.request_id, part.payloads(written_at_us), part.content, write.revision)
        seconds, started, stages = _ACKNOWLEDGED[write.options.level], time.perf_counter(), Stages()
        try:
            logged = await self._group_commit.append(key, request, deadline)
        except KintsugiError as error:
            return PartOutcome(part, error=error)
        stages.reached(SpanEvent.APPEND, shard=part.shard)
        if write.options.level is Level.LOGGED:
            seconds.observe(time.perf_counter() - started)
            return PartOutcome(part, position=logged.last)
        try:
            records = await self._acknowledgements.wait(key, logged, write.options, deadline)
        except KintsugiError as error:
            return PartOutcome(part, error=error)
        stages.reached(SpanEvent.ACKNOWLEDGE, shard=part.shard)
        seconds.observe(time.perf_counter() - started)
        return PartOutcome(part, position=logged.last, records=records)


def _is_behind(outcome: PartOutcome) -> bool:
    return outcome.error is not None and outcome.error.reason == REGISTRY_BEHIND
