"""Turns single searches that start together into one SearchBatch call.

Searches that are asked for in the same pass of the event loop and differ only in their query vector share a call;
a lone one stays a plain Search. Nothing waits for company, so a single search is never slower. One bad query must not
fail the others: a batch that is refused is asked again one by one.
"""

import asyncio
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
        for first in range(0, len(waiting), MAX_QUERIES):
            group = waiting[first : first + MAX_QUERIES]
            futures = [future for _, future, _ in group]
            callers = [caller for _, _, caller in group]
            answers = self._answers(key, [vector for vector, _, _ in group], callers)
            task = asyncio.get_running_loop().create_task(answers)
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(partial(_settle, futures))
            for future in futures:
                future.add_done_callback(partial(_cancel_when_unwanted, futures, task))

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
