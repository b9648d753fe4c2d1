"""Ends tasks for certain. In Python 3.11 asyncio.wait_for loses a cancellation that meets the result, and the Redis
client uses it at every command: a loop that was cancelled once may run on, and whoever waits for it hangs.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any

_AGAIN_S = 0.2


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancels the tasks until they are done. What they raise is theirs to tell, and stays in them."""
    open_tasks = set(tasks)
    while open_tasks:
        for task in open_tasks:
            task.cancel()
        _, open_tasks = await asyncio.wait(open_tasks, timeout=_AGAIN_S)


async def finish(cleanup: Coroutine[Any, Any, None]) -> None:
    """Runs the clean-up of a task that is being ended to its end, however often the task is cancelled meanwhile. Only
    for a `finally`: the cancellation goes on behind it."""
    task = asyncio.ensure_future(cleanup)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()
