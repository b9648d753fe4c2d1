"""Computations on a thread of their own."""

import threading

import pytest

from shard.aside import Aside


def test_the_result_is_there_when_it_is_done():
    """Not before, and with the time that it took."""
    go = threading.Event()
    aside = Aside(lambda: go.wait(30), "test")
    assert not aside.wait(0.0)
    assert aside.seconds == 0
    go.set()
    assert aside.wait(30)
    assert aside.result() is True
    assert aside.seconds > 0


def test_what_it_raises_is_raised_to_who_asks():
    """And ends the waiting."""
    aside = Aside(lambda: 1 // 0, "test")
    assert aside.wait(30)
    with pytest.raises(ZeroDivisionError):
        aside.result()
