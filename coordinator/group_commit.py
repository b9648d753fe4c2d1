"""Group commit: requests that arrive while a shard's log is being written are appended together by the next call.

1. One append per shard is in flight; requests are appended in the order of their arrival, each whole.
2. A lone request is never held back to wait for company.
3. What waits is bounded in bytes; beyond that, requests are sent away with a retry delay.
4. A request that times out while it waits is taken out and was certainly not written.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from coordinator.deadline import Deadline
from coordinator.operations import ShardKey
from kintsugi.errors import DeadlineExceeded, KintsugiError, ResourceExhausted
from kintsugi.log.append import NOT_WRITTEN, OUTCOME_UNKNOWN, AppendRequest, AppendResult
from kintsugi.telemetry import metric_names, metrics

Outcome = AppendResult | KintsugiError
AppendGroup = Callable[[ShardKey, Sequence[AppendRequest], Deadline], Awaitable[Sequence[Outcome]]]

_RETRY_DELAY_S = 0.5

_GROUP_DOCUMENTS = metrics.histogram(metric_names.GROUP_DOCUMENTS)
_APPEND_SECONDS = metrics.histogram(metric_names.APPEND_SECONDS)


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """The largest group, and what may wait in all. A larger request makes a group of its own."""

    documents: int
    bytes: int
    pending_bytes: int


@dataclass(slots=True, eq=False)
class _Pending:
    request: AppendRequest
    size: int
    deadline: Deadline
    done: asyncio.Future[AppendResult]


class GroupCommit:
    def __init__(self, append_group: AppendGroup, limits: GroupLimits) -> None:
        self._append_group = append_group
        self._limits = limits
        self._queues: dict[ShardKey, deque[_Pending]] = {}
        self._writers: dict[ShardKey, asyncio.Task[None]] = {}
        self._pending_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Of writes that wait for a log, or are on their way into it."""
        return self._pending_bytes

    async def append(self, key: ShardKey, request: AppendRequest, deadline: Deadline) -> AppendResult:
        """Where the request stands in the log. A DeadlineExceeded with the reason NOT_WRITTEN or OUTCOME_UNKNOWN tells
        whether it was still waiting."""
        size = request.size
        if self._pending_bytes + size > self._limits.pending_bytes:
            raise ResourceExhausted(
                f"{self._pending_bytes} bytes of writes wait for the log, {size} more would exceed "
                f"{self._limits.pending_bytes}",
                reason="WRITE_QUEUE_FULL",
                retry_delay_s=_RETRY_DELAY_S,
            )
        pending = _Pending(request, size, deadline, asyncio.get_running_loop().create_future())
        queue = self._queues.setdefault(key, deque())
        queue.append(pending)
        self._pending_bytes += size
        if key not in self._writers:
            self._writers[key] = asyncio.create_task(self._drain(key, queue), name=f"group commit {key[0]}/{key[1]}")
        try:
            async with asyncio.timeout(deadline.remaining_s):
                return await pending.done
        except TimeoutError as error:
            reason = NOT_WRITTEN if pending in queue else OUTCOME_UNKNOWN
            raise DeadlineExceeded(f"shard {key[1]} did not take the write in time", reason=reason) from error
        finally:
            self._pending_bytes -= size
            if pending in queue:
                queue.remove(pending)

    async def close(self) -> None:
        """Waits for the appends that are under way."""
        await asyncio.gather(*self._writers.values(), return_exceptions=True)

    async def _drain(self, key: ShardKey, queue: deque[_Pending]) -> None:
        try:
            while queue:
                await self._write(key, self._next_group(queue))
        finally:
            # No await stands between the emptied queue and here: nobody can have joined it.
            del self._writers[key], self._queues[key]
            for pending in queue:
                pending.done.cancel()

    def _next_group(self, queue: deque[_Pending]) -> list[_Pending]:
        group = [queue.popleft()]
        documents, size = group[0].request.records, group[0].size
        # A request id names one key of the script: its repetition goes into a later group.
        request_ids = {group[0].request.request_id}
        while queue:
            documents += queue[0].request.records
            size += queue[0].size
            request_id = queue[0].request.request_id
            if documents > self._limits.documents or size > self._limits.bytes or request_id in request_ids:
                break
            request_ids.add(request_id)
            group.append(queue.popleft())
        return group

    async def _write(self, key: ShardKey, group: Sequence[_Pending]) -> None:
        # The call may last as long as its most patient request; each waiter watches its own deadline.
        deadline = max((pending.deadline for pending in group), key=lambda deadline: deadline.at)
        _GROUP_DOCUMENTS.observe(sum(pending.request.records for pending in group))
        started = time.perf_counter()
        try:
            outcomes = await self._append_group(key, [pending.request for pending in group], deadline)
        except asyncio.CancelledError:
            for pending in group:
                pending.done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 -- every waiter must learn of it, whatever it is
            for pending in group:
                _settle(pending, error)
            return
        _APPEND_SECONDS.observe(time.perf_counter() - started)
        for pending, outcome in zip(group, outcomes, strict=True):
            _settle(pending, outcome)


def _settle(pending: _Pending, outcome: AppendResult | Exception) -> None:
    if pending.done.done():  # its caller gave up
        return
    if isinstance(outcome, Exception):
        pending.done.set_exception(outcome)
    else:
        pending.done.set_result(outcome)
