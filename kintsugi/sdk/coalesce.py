"""Turns single searches that start together into SearchBatch calls.

Searches that are asked for in the same pass of the event loop and differ only in their query vector share a call, or two
when none is under way: callers that all go on when one call is answered would leave the client, the coordinator and all
replicas but one idle in turns. A lone search stays a plain Search. Nothing waits for company, so a single search is never
slower. One bad query must not fail the others: a batch that is refused is asked again one by one.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from opentelemetry.trace import SpanContext

from kintsugi.errors import InvalidArgument
from kintsugi.limits import MAX_QUERIES
from kintsugi.sdk.types import BatchResult, FloatArray, SearchResult
from kintsugi.telemetry import tracing

Key = TypeVar("Key", bound=Hashable)
Waiter: TypeAlias = "asyncio.Future[SearchResult]"
Caller: TypeAlias = SpanContext | None
Answers: TypeAlias = "asyncio.Task[list[SearchResult | BaseException]]"

# Calls that are under way at once when there are searches enough, and how many of them are worth a call.
_CALLS = 2
_WORTH_A_CALL = 4


class Coalescer(Generic[Key]):
    """`Key` holds everything that searches of one batch have in common."""

    def __init__(
        self,
        search_one: Callable[[Key, FloatArray], Awaitable[SearchResult]],
        search_many: Callable[[Key, list[FloatArray]], Awaitable[BatchResult]],
    ) -> None:
        self._search_one = search_one
        self._search_many = search_many
        self._waiting: dict[Key, list[tuple[FloatArray, Waiter, Caller]]] = {}
        self._running: set[Answers] = set()
        self._calls: Counter[Key] = Counter()

    async def search(self, key: Key, vector: FloatArray) -> SearchResult:
        loop = asyncio.get_running_loop()
        future: Waiter = loop.create_future()
        waiting = self._waiting.setdefault(key, [])
        waiting.append((vector, future, tracing.caller()))
        if len(waiting) == 1:
            loop.call_soon(self._start, key)
        return await future

    def _start(self, key: Key) -> None:
        waiting = [one for one in self._waiting.pop(key) if not one[1].done()]
        most = _most_per_call(len(waiting), self._calls[key])
        for first in range(0, len(waiting), most):
            group = waiting[first : first + most]
            futures = [future for _, future, _ in group]
            callers = [caller for _, _, caller in group]
            answers = self._answers(key, [vector for vector, _, _ in group], callers)
            task = asyncio.get_running_loop().create_task(answers)
            self._running.add(task)
            self._calls[key] += 1
            task.add_done_callback(partial(self._ended, key))
            task.add_done_callback(partial(_settle, futures))
            for future in futures:
                future.add_done_callback(partial(_cancel_when_unwanted, futures, task))

    def _ended(self, key: Key, task: Answers) -> None:
        self._running.discard(task)
        self._calls[key] -= 1
        if not self._calls[key]:
            del self._calls[key]

    async def _answers(
        self, key: Key, vectors: list[FloatArray], callers: list[Caller]
    ) -> list[SearchResult | BaseException]:
        tracing.link_callers(callers)
        if len(vectors) == 1:
            return [await self._search_one(key, vectors[0])]
        try:
            batch = await self._search_many(key, vectors)
        except InvalidArgument:
            return await asyncio.gather(*(self._search_one(key, one) for one in vectors), return_exceptions=True)
        return [SearchResult(batch.hits(query), batch.coverage) for query in range(len(vectors))]


def _most_per_call(searches: int, calls: int) -> int:
    """How many searches share a call, while so many calls are under way."""
    parts = max(1, min(_CALLS - calls, searches // _WORTH_A_CALL))
    return min(-(-searches // parts), MAX_QUERIES) or 1


def _settle(futures: list[Waiter], task: Answers) -> None:
    """Hands what became of a call to those who wait for it."""
    if task.cancelled():
        for future in futures:
            future.cancel()
        return
    failure = task.exception()
    answers = [failure] * len(futures) if failure is not None else task.result()
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _cancel_when_unwanted(futures: list[Waiter], task: Answers, _cancelled: Waiter) -> None:
    if all(future.cancelled() for future in futures):
        task.cancel()
