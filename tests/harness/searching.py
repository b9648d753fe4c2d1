"""Searches that go on while something else happens."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from harness.oracle import DIMENSION
from harness.waiting import PATIENCE_S, until
from kintsugi import AsyncClient, KintsugiError, RetryPolicy
from kintsugi.cancelling import end
from kintsugi.sdk.types import SearchResult

# A wait that is longer than any deadline: the first failure stands.
NO_RETRIES = RetryPolicy(first_delay_s=1e6, max_delay_s=1e6)


class Searches:
    """`async with Searches(...)`: searches without pause, and fails at the end if one of them failed."""

    def __init__(
        self,
        addresses: list[str],
        collection: str,
        *,
        workers: int = 2,
        timeout_s: float = 10.0,
        check: Callable[[SearchResult], None] = lambda _: None,
    ) -> None:
        self._client = AsyncClient(addresses, retry=NO_RETRIES, timeout_s=timeout_s)
        self._collection = collection
        self._workers = workers
        self._check = check
        self._tasks: list[asyncio.Task[None]] = []
        self.answered = 0
        self.slowest_s = 0.0
        self.failures: list[str] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._search(number)) for number in range(self._workers)]
        await self.some_more()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.some_more()
        await end(self._tasks)
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()
        defects = [one for one in done if one is not None and not isinstance(one, asyncio.CancelledError)]
        if kind is None:
            assert not self.failures, f"{len(self.failures)} searches failed: {self.failures[:3]}"
            assert not defects, defects

    async def some_more(self, count: int = 20, timeout_s: float = PATIENCE_S) -> None:
        """Returns when this many more searches were answered, or one has failed."""
        target = self.answered + count
        await until(lambda: self.answered >= target or bool(self.failures), "background searches", timeout_s)
        assert not self.failures, self.failures[:3]

    async def _search(self, number: int) -> None:
        rng = np.random.default_rng(number)
        while True:
            started = time.monotonic()
            try:
                result = await self._client.search(self._collection, rng.normal(size=DIMENSION), k=5)
            except KintsugiError as error:
                self.failures.append(f"{type(error).__name__} after {time.monotonic() - started:.2f} s: {error}")
                return
            self._check(result)
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            self.answered += 1
