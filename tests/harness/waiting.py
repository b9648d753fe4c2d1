"""Waiting for conditions with a deadline, instead of sleeping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# Generous, because a loaded machine is slow; reached only when something is wrong.
PATIENCE_S = 60.0
POLL_S = 0.05


async def until_empty(problem: Callable[[], Awaitable[T]], timeout_s: float = PATIENCE_S) -> None:
    """Returns once `problem()` is falsy; fails with the last problem at the deadline."""
    end = time.monotonic() + timeout_s
    while found := await problem():
        assert time.monotonic() < end, f"after {timeout_s:g} s: {found}"
        await asyncio.sleep(POLL_S)


async def until(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Returns once `condition()` holds; fails naming `what` was waited for at the deadline."""

    async def problem() -> str:
        return "" if condition() else f"still waiting: {what}"

    await until_empty(problem, timeout_s)
