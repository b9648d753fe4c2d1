"""A long computation on a thread of its own, beside one that must not stand still. Knows nothing of what is computed."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """Begins at once. Nobody has to wait for its end: what is given up ends by itself, also with the process."""

    def __init__(self, compute: Callable[[], T], name: str) -> None:
        self._compute = compute
        self._done = threading.Event()
        self._results: list[T] = []
        self._error: BaseException | None = None
        # How long it took, 0 before its end.
        self.seconds = 0.0
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is done within this time."""
        return self._done.wait(timeout_s)

    def result(self) -> T:
        """What came out, once it is done. Raises what it raised."""
        if self._error is not None:
            raise self._error
        (result,) = self._results
        return result

    def _run(self) -> None:
        started = time.monotonic()
        try:
            self._results.append(self._compute())
        except BaseException as error:  # noqa: BLE001 -- raised to whoever asks for the result
            self._error = error
        self.seconds = time.monotonic() - started
        self._done.set()
