"""Tasks end, also those that lose a cancellation."""

import asyncio

from kintsugi.cancelling import end, finish


async def test_a_task_that_loses_a_cancellation_ends_all_the_same():
    """A loop that swallows the first cancellation, as wait_for may, is cancelled again; failures stay in their task."""
    lost, started = asyncio.Event(), asyncio.Event()

    async def loses_one():
        while True:
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost.is_set():
                    raise
                lost.set()

    async def fails():
        raise ValueError("of its own")

    tasks = [asyncio.create_task(loses_one()), asyncio.create_task(fails())]
    await started.wait()
    await asyncio.wait_for(end(tasks), 10)
    assert lost.is_set()
    assert tasks[0].cancelled()
    assert str(tasks[1].exception()) == "of its own"
    await end([])


async def test_a_clean_up_comes_to_its_end():
    """However often its task is cancelled, what was begun is finished, and the task is cancelled all the same."""
    started, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def clean_up():
        started.set()
        await may_end.wait()
        ended.set()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await finish(clean_up())

    task = asyncio.create_task(work())
    ending = asyncio.create_task(end([task]))
    await started.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.wait([task], timeout=0.01)
    assert not task.done()
    may_end.set()
    await asyncio.wait_for(ending, 10)
    assert ended.is_set()
    assert task.cancelled()
