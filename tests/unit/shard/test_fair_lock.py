"""The lock that is given in the order of asking."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from shard.fair_lock import FairLock


async def test_who_asks_again_at_once_comes_last(eventually):
    """Two threads that waited have had their turn before."""
    lock, order = FairLock(), []

    def take(name):
        with lock:
            order.append(name)

    with ThreadPoolExecutor(2) as threads:
        with lock:
            waiting = []
            for name in ("first", "second"):
                before = lock.asked
                waiting.append(threads.submit(take, name))
                await eventually(lambda before=before: lock.asked == before + 1)
        take("again")
        for one in waiting:
            one.result(10)
    assert order == ["first", "second", "again"]


def test_a_failure_gives_the_lock_back():
    """The next one gets it."""
    lock = FairLock()
    with pytest.raises(ValueError, match="x"), lock:
        raise ValueError("x")
    assert lock.asked == 0
    with lock:
        assert lock.asked == 1
