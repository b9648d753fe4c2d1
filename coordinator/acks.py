"""Waits until a logged write is as safe as its request asks, and learns what replay made of each record.

1. Only answers of replicas that are in sync when the write is acknowledged count; the in-sync set is looked at again
   whenever the registry changes.
2. Replicas compare epoch, sequence number and digest, so that no other write is taken for this one.
3. A replica that cannot answer now is asked again until the deadline; one that says recovery discarded the write ends
   the wait with Aborted.

Knows nothing of how the write was logged.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from coordinator.deadline import Deadline
from coordinator.operations import Level, Options, ShardKey
from kintsugi.errors import Aborted, DeadlineExceeded, KintsugiError, NotFound
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.append import OUTCOME_UNKNOWN, AppendResult
from kintsugi.registry.records import Shard, View

AskAwait = Callable[[str, shard_pb2.AwaitRequest, float], Awaitable[shard_pb2.AwaitResponse]]

_RETRY_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class RecordResult:
    """What replay made of one record, and the document's version after it (0: none)."""

    outcome: shard_pb2.RecordOutcome.ValueType
    version: int


class Changes:
    """Lets tasks wait for the next change of the registry."""

    def __init__(self, subscribe: Callable[[Callable[[], None]], object]) -> None:
        self._next = asyncio.Event()
        subscribe(self._on_change)

    @property
    def next(self) -> asyncio.Event:
        """Set by the next change. Take it before looking at the registry."""
        return self._next

    def _on_change(self) -> None:
        self._next.set()
        self._next = asyncio.Event()


class Acknowledgements:
    """`view` gives the present registry, `ask` makes the Await call to one member."""

    def __init__(self, view: Callable[[], View | None], changes: Changes, ask: AskAwait) -> None:
        self._view = view
        self._changes = changes
        self._ask = ask

    async def wait(
        self, key: ShardKey, written: AppendResult, options: Options, deadline: Deadline
    ) -> list[RecordResult]:
        """The results of the records, in order. Raises Aborted, NotFound (the collection is gone) or DeadlineExceeded.
        Aborted has the reason OUTCOME_UNKNOWN when recovery may have kept the first of several records."""
        wait = _Wait(self._ask, key, written, options, deadline)
        try:
            while True:
                changed = self._changes.next
                shard = self._shard(key, written)
                answer = wait.acknowledged(shard)
                if answer is not None:
                    return _results(answer, written)
                wait.ask(shard)
                await wait.progress(changed)
        except Aborted as error:
            if written.first_seq == written.last.seq:
                raise
            # Replicas cut the log where their batches end, not where requests do.
            raise Aborted(f"{error.message}; records before it may be kept", reason=OUTCOME_UNKNOWN) from error
        finally:
            wait.cancel()

    def _shard(self, key: ShardKey, written: AppendResult) -> Shard:
        view = self._view()
        shard = view.shards.get(key) if view else None
        if shard is None:
            raise NotFound(f"collection {key[0]} was deleted", reason="COLLECTION_NOT_FOUND")
        position = written.last
        if position.epoch <= shard.epoch and not shard.survived(position.epoch, position.seq):
            raise Aborted(f"recovery of shard {key[1]} discarded the write {position.epoch}-{position.seq}")
        return shard


class _Wait:
    """One wait: whom was asked and who answered."""

    def __init__(
        self, ask: AskAwait, key: ShardKey, written: AppendResult, options: Options, deadline: Deadline
    ) -> None:
        self._ask = ask
        self._options = options
        self._deadline = deadline
        self._tasks: dict[str, asyncio.Task[shard_pb2.AwaitResponse]] = {}
        position = written.last
        self._request = shard_pb2.AwaitRequest(
            replica=shard_pb2.ReplicaRef(collection_uid=key[0], shard=key[1]),
            position=shard_pb2.Position(epoch=position.epoch, seq=position.seq, digest=position.digest),
            searchable=options.level is Level.SEARCHABLE,
            outcomes_from=written.first_seq,
        )
        self._last_problem = ""

    def acknowledged(self, shard: Shard) -> shard_pb2.AwaitResponse | None:
        """An answer when enough in-sync replicas gave one. Raises what ends the wait."""
        # One that left the in-sync set holds another history, perhaps: what it says of this write is nothing to go by.
        asked = [self._tasks[member] for member in shard.in_sync if member in self._tasks]
        counting = [task.result() for task in asked if task.done()]
        enough = len(counting) >= self._options.durable_replicas
        if self._options.level is Level.SEARCHABLE:
            enough = enough and len(counting) == len(shard.in_sync)
        return counting[0] if enough and counting else None

    def ask(self, shard: Shard) -> None:
        for member in shard.in_sync:
            if member not in self._tasks:
                self._tasks[member] = asyncio.create_task(self._ask_until_answered(member))

    async def progress(self, changed: asyncio.Event) -> None:
        """Returns after an answer or a change of the registry. Raises DeadlineExceeded."""
        change = asyncio.ensure_future(changed.wait())
        open_tasks = [task for task in self._tasks.values() if not task.done()]
        try:
            done, _ = await asyncio.wait(
                [change, *open_tasks], timeout=self._deadline.remaining_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            change.cancel()
        if not done:
            raise DeadlineExceeded(
                f"shard {self._request.replica.shard} was not {self._options.level.value} "
                f"on enough replicas in time{self._last_problem}",
                reason=OUTCOME_UNKNOWN,
            )

    def cancel(self) -> None:
        for task in self._tasks.values():
            # Asking for the exception of a finished task marks it as seen.
            if not task.cancel() and not task.cancelled():
                task.exception()

    async def _ask_until_answered(self, member: str) -> shard_pb2.AwaitResponse:
        while True:
            try:
                return await self._ask(member, self._request, max(self._deadline.remaining_s, 0.001))
            except Aborted:
                raise
            except KintsugiError as error:
                self._last_problem = f": {member}: {error.message}"
            await asyncio.sleep(_RETRY_PAUSE_S)


def _results(answer: shard_pb2.AwaitResponse, written: AppendResult) -> list[RecordResult]:
    count = written.last.seq - written.first_seq + 1
    outcomes = [*answer.outcomes]
    if len(outcomes) != count:  # never happens between servers of one release; then nothing is known of any record
        outcomes = [shard_pb2.RECORD_OUTCOME_FORGOTTEN] * count
    versions = [*answer.versions, *[0] * (count - len(answer.versions))]
    return [RecordResult(outcome, version) for outcome, version in zip(outcomes, versions, strict=False)]
