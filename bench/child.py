"""An object that lives in a process of its own: made there, called from here.

Spawned, not forked: gRPC survives no fork. Calls may run in several children at once: `start` here, `result` later.
A child ends with this process.
"""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
_SPAWN = multiprocessing.get_context("spawn")


class ChildFailed(Exception):
    """A call raised over there; the message is its traceback."""


class Child(Generic[T]):
    """`with Child(Index, path) as child: child.call(Index.search, query)`."""

    def __init__(self, make: Callable[..., T], *args: object) -> None:
        self._here, there = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_live, args=(there, make, args), daemon=True)
        self._process.start()
        there.close()
        self._receive()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def start(self, method: Callable[..., Any], *args: object) -> None:
        self._here.send((method.__name__, args))

    def result(self) -> Any:
        """Of the call that was started."""
        return self._receive()

    def call(self, method: Callable[..., Any], *args: object) -> Any:
        self.start(method, *args)
        return self.result()

    def close(self) -> None:
        self._here.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            succeeded, value = self._here.recv()
        except EOFError as error:
            raise ChildFailed(f"process {self.pid} has died") from error
        if not succeeded:
            raise ChildFailed(value)
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _live(pipe: Connection, make: Callable[..., object], args: tuple[object, ...]) -> None:
    try:
        being = make(*args)
    except Exception:  # noqa: BLE001 - the parent raises it
        pipe.send((False, traceback.format_exc()))
        return
    pipe.send((True, None))
    while True:
        try:
            name, call_args = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            pipe.send((True, getattr(being, name)(*call_args)))
        except Exception:  # noqa: BLE001 - the parent raises it
            pipe.send((False, traceback.format_exc()))
