"""Lets coroutines wait until a thread has reached a sequence number."""

import asyncio
import contextlib
import threading
from dataclasses import dataclass

from kintsugi.errors import Unavailable


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    seq: int
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[None]"

    def settle(self, error: Unavailable | None) -> None:
        """On the waiter's own loop, which may have closed since; then nobody waits any more."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: Unavailable | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class SeqWaiters:
    """Thread-safe. `reached` and `fail` are called by the one thread, `wait` by coroutines of any loop."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # Below every sequence number: even 0 is reached only once there is something to search.
        self._reached = -1
        # Message and reason: each waiter gets an exception of its own, with its own traceback.
        self._failure: tuple[str, str] | None = None
        self._waiting: set[_Waiter] = set()

    async def wait(self, seq: int) -> None:
        """Returns when `seq` is reached; raises Unavailable once `fail` was called."""
        with self._guard:
            if seq <= self._reached:
                return
            if self._failure is not None:
                raise _unavailable(self._failure)
            loop = asyncio.get_running_loop()
            waiter = _Waiter(seq, loop, loop.create_future())
            self._waiting.add(waiter)
        try:
            await waiter.future
        finally:
            with self._guard:
                self._waiting.discard(waiter)

    def reached(self, seq: int) -> None:
        with self._guard:
            self._reached = seq
            done = [waiter for waiter in self._waiting if waiter.seq <= seq]
        for waiter in done:
            waiter.settle(None)

    def fail(self, message: str, reason: str) -> None:
        """From now on nothing more is reached. The first call counts."""
        with self._guard:
            self._failure = self._failure or (message, reason)
            waiting = list(self._waiting)
        for waiter in waiting:
            waiter.settle(_unavailable(self._failure))


def _unavailable(failure: tuple[str, str]) -> Unavailable:
    message, reason = failure
    return Unavailable(message, reason=reason)
