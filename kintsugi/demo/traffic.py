"""Several searchers that ask without pause while something happens to the cluster. Asynchronous, without retries.

Every answer is judged: a failure, an incomplete answer or a wrong one is counted, none is forgiven.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from kintsugi.demo import answers
from kintsugi.demo.answers import K
from kintsugi.demo.embed import Vectors
from kintsugi.errors import KintsugiError
from kintsugi.ids import DocId
from kintsugi.sdk.aio import AsyncClient
from kintsugi.sdk.options import SearchOptions
from kintsugi.sdk.types import SearchResult

_POLL_S = 0.02


class Question(Protocol):
    """`vector` is asked, and the answer is right or not."""

    @property
    def vector(self) -> Vectors | dict[str, Vectors]: ...

    def is_right(self, found: SearchResult) -> bool: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its right answer and the number of documents it must be compared with."""

    vector: Vectors
    wanted: Sequence[DocId]
    documents: int

    def is_right(self, found: SearchResult) -> bool:
        share = answers.share_of(self.wanted, [hit.id for hit in found])
        # One of ten may be missed by the index of either replica.
        return answers.is_complete(found, self.documents) and share >= 1 - 1 / K


@dataclass(frozen=True, slots=True)
class AskedAmidUpgrade:
    """A question while documents come and models change. `wanted` are the right answers of the model's own documents, or
    nothing when nobody knows them."""

    vector: Vectors | dict[str, Vectors]
    wanted: Sequence[DocId] = ()

    def is_right(self, found: SearchResult) -> bool:
        # Documents that came meanwhile have no vector of the model, and take places of those that have.
        own = {hit.id for hit in found if not hit.projected}
        missed = set(self.wanted[: len(own)]) - own
        has_own = not self.wanted or len(own) > 0
        return found.coverage.complete and len(found.hits) == K and has_own and len(missed) <= 1


@dataclass(slots=True)
class Traffic:
    """`async with Traffic(...)`: the searchers ask until the block is left. `model`: '' asks for the serving one."""

    collection: str
    questions: Sequence[Question]
    clients: Sequence[AsyncClient]
    model: str = ""
    answered: int = 0
    wrong: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _closing: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        for number, client in enumerate(self.clients):
            await self._closing.enter_async_context(client)
            # Each searcher begins with another question.
            questions = itertools.islice(itertools.cycle(self.questions), number, None)
            self._tasks.append(asyncio.create_task(self._search(client, questions)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._closing.aclose()
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError) and kind is None:
                raise end

    async def more(self, count: int, patience_s: float) -> bool:
        """Waits until this many more searches have ended, well or not; False when that takes too long."""
        target = self.ended + count
        return await wait_until(lambda: self.ended >= target, patience_s)

    @property
    def ended(self) -> int:
        return self.answered + len(self.failures)

    async def _search(self, client: AsyncClient, questions: Iterator[Question]) -> None:
        options: SearchOptions = {"model": self.model} if self.model else {}
        for asked in questions:
            started = time.monotonic()
            try:
                found = await client.search(self.collection, asked.vector, K, **options)
            except KintsugiError as error:
                self.failures.append(str(error))
                await asyncio.sleep(_POLL_S)  # a refusal at once, again and again, would starve everybody else
                continue
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            self.answered += 1
            self.wrong += not asked.is_right(found)


async def wait_until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
