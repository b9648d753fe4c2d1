"""A lock that threads get in the order of asking.

With an ordinary lock, a thread that gives it back and asks again at once gets it again: work cut into small pieces would
keep others waiting all the same.
"""

import threading


class FairLock:
    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._next = 0
        self._turn = 0

    @property
    def asked(self) -> int:
        """How many threads hold the lock or wait for it."""
        with self._condition:
            return self._next - self._turn

    def __enter__(self) -> None:
        with self._condition:
            mine = self._next
            self._next += 1
            self._condition.wait_for(lambda: self._turn == mine)

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._turn += 1
            self._condition.notify_all()
