"""The batcher alone, with a send that tests hold back: cancellation, deadlines, bounds."""

import asyncio
import time

import numpy as np

from coordinator.batching import Batcher, BatchLimits, LaneKey
from coordinator.deadline import Deadline
from kintsugi import columns
from kintsugi.errors import Unavailable
from kintsugi.internal.v1 import shard_pb2

KEY = LaneKey("host:1", "uid", 0, "m", 1, False, 0.0, None, False, False, 1)


class HeldSend:
    """Answers each query with its own first element as id, once released."""

    def __init__(self):
        self.messages = []
        self.deadlines = []
        self.release = asyncio.Event()
        self.error = None
        self.cancelled = 0

    async def __call__(self, address, request, deadline):
        queries = np.frombuffer(request.queries, "<f4").reshape(request.count, -1)
        self.messages.append(queries[:, 0].astype(int).tolist())
        self.deadlines.append(deadline)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return shard_pb2.ShardSearchResponse(
            counts=[1] * len(queries),
            ids=columns.pack_ids(self.messages[-1] if len(self.messages) == 1 else queries[:, 0].astype(int).tolist()),
            scores=columns.pack_f64(queries[:, 0]),
            versions=columns.pack_u64(queries[:, 0]),
        )


def query(number, count=1):
    return np.full((count, 2), number, np.float32)


async def settle():
    """Lets everything run that can run now."""
    for _ in range(10):
        await asyncio.sleep(0)


def after(seconds):
    return Deadline.after(seconds, time.monotonic)


def start(batcher, number, *, count=1, seconds=5.0):
    return batcher.search(KEY, query(number, count), after(seconds))


async def test_messages_are_bounded_in_queries_and_keep_their_order():
    """Waiters join the next message in the order they came, up to the bound; a larger one goes alone."""
    send = HeldSend()
    batcher = Batcher(send, BatchLimits(max_queries=4, max_in_flight=1))
    tasks = [start(batcher, 0)]
    await settle()
    tasks += [start(batcher, 1), start(batcher, 2), start(batcher, 3, count=2), start(batcher, 4, count=6)]
    await settle()
    assert send.messages == [[0]]
    send.release.set()
    answers = await asyncio.gather(*tasks)
    assert send.messages == [[0], [1, 2, 3, 3], [4] * 6]
    assert [answer.hits.ids.decoded() for answer in answers] == [[0], [1], [2], [3, 3], [4] * 6]


async def test_messages_are_bounded_in_bytes():
    """The bytes of a message count as its queries do."""
    send = HeldSend()
    batcher = Batcher(send, BatchLimits(max_bytes=16, max_in_flight=1))
    tasks = [start(batcher, number) for number in range(4)]
    send.release.set()
    await asyncio.gather(*tasks)
    assert send.messages == [[0], [1, 2], [3]]


async def test_a_cancelled_waiter_leaves_the_others_alone():
    """Cancelling one of several waiters neither cancels their message nor sends its own query."""
    send = HeldSend()
    batcher = Batcher(send, BatchLimits(max_in_flight=1))
    first = start(batcher, 0)
    await settle()
    queued, other = start(batcher, 1), start(batcher, 2)
    await settle()
    queued.cancel()
    await settle()
    send.release.set()
    assert (await first).hits.ids.decoded() == [0]
    assert (await other).hits.ids.decoded() == [2]
    assert send.messages == [[0], [2]]


async def test_a_message_nobody_waits_for_is_cancelled():
    """The last waiter takes the call with it, and the lane is free for the next query."""
    send = HeldSend()
    batcher = Batcher(send, BatchLimits(max_in_flight=1))
    task = start(batcher, 0)
    await settle()
    task.cancel()
    await settle()
    assert send.cancelled == 1
    send.release.set()
    assert (await start(batcher, 1)).hits.ids.decoded() == [1]
    await settle()
    assert batcher.stats().lanes == 0


async def test_a_message_lasts_as_long_as_its_most_patient_waiter():
    """A short deadline does not end what others wait for."""
    send = HeldSend()
    batcher = Batcher(send, BatchLimits(max_in_flight=1))
    waiters = [start(batcher, 0), start(batcher, 1, seconds=0.05), start(batcher, 2, seconds=60.0)]
    send.release.set()
    await asyncio.gather(*waiters)
    assert send.messages == [[0], [1, 2]]
    assert send.deadlines[1].remaining_s > 5


async def test_a_failure_reaches_all_waiters():
    """Nobody waits for a message that failed."""
    send = HeldSend()
    send.error = Unavailable("down")
    batcher = Batcher(send)
    tasks = [start(batcher, number) for number in range(5)]
    await settle()
    send.release.set()
    assert all(isinstance(e, Unavailable) for e in await asyncio.gather(*tasks, return_exceptions=True))
