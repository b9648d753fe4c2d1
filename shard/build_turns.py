"""Lets the replicas of this server begin background builds when it is their turn.

Outline: an indexer's thread asks, again and again while it goes on following the journal; the event loop claims the turn
in the registry, at once and whenever the registry changed, and wakes the thread; the thread finds its wish granted.

Guarantees: a wish is granted only after the registry says that the replica builds (unless it is alone, see
kintsugi/registry/rollout.py); while Redis is down the others wait. Who stops wishing gives back what was granted. Does
not know what is built, or whether it ends well: that is told by the events of the version.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from kintsugi.errors import KintsugiError
from kintsugi.registry.records import IndexVersion, IndexVersionState
from kintsugi.registry.watch import RegistryWatcher
from kintsugi.telemetry import LogEvent, logger
from shard.index_reports import IndexReports

RETRY_S = 1.0

_log = logger("build-turns")


@dataclass(frozen=True, slots=True)
class Wish:
    """A version that a replica wants to build; `wake` is called, on the event loop, when it may."""

    version: int
    encoding: str
    wake: Callable[[], None]


class BuildTurn:
    """The turn of one (replica, model), for the thread of its indexer."""

    def __init__(
        self, turns: "BuildTurns", replica: tuple[str, int], model: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.replica = replica
        self.model = model
        # For people: what the wish waits for, '' when there is none.
        self.waits_for = ""
        self.granted: Wish | None = None
        self._turns = turns
        self._loop = loop
        self._wish: Wish | None = None

    def ask(self, version: int, encoding: str, wake: Callable[[], None]) -> bool:
        """Whether the replica may begin to build this version now. Once true, it must begin or `withdraw`."""
        granted = self.granted
        if granted is not None and granted.version == version:
            self._wish = None
            return True
        wish = Wish(version, encoding, wake)
        if wish != self._wish:
            self._wish = wish
            self._soon(self._turns.enter, wish)
        return False

    def withdraw(self) -> None:
        """Nothing is to be built after all."""
        if self._wish is not None:
            self._wish = None
            self._soon(self._turns.leave)

    def _soon(self, call: Callable[..., None], *arguments: object) -> None:
        # A loop that has closed has nobody who would grant anything.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, self, *arguments)


class BuildTurns:
    """All turns of a shard server. Except for `BuildTurn`, everything happens on the event loop."""

    def __init__(self, watcher: RegistryWatcher, reports: IndexReports, member: str) -> None:
        self._watcher = watcher
        self._reports = reports
        self._member = member
        self._waiting: dict[BuildTurn, Wish] = {}
        self._changed = asyncio.Event()

    def turn_of(self, replica: tuple[str, int], model: str, loop: asyncio.AbstractEventLoop) -> BuildTurn:
        """The turn of the index of a model that is being opened; `replica` is a collection's uid and a shard."""
        return BuildTurn(self, replica, model, loop)

    def enter(self, turn: BuildTurn, wish: Wish) -> None:
        self._waiting[turn] = wish
        self._changed.set()

    def leave(self, turn: BuildTurn) -> None:
        wish = self._waiting.pop(turn, None) or turn.granted
        if wish is not None:
            self._reports.give_back(*turn.replica, wish.version)
        turn.granted, turn.waits_for = None, ""

    async def run(self) -> None:
        """Grants what may be granted, until cancelled."""
        unsubscribe = self._watcher.subscribe(self._changed.set)
        try:
            while True:
                # The end of a build on this server is told to the registry, which may be away: look again in time.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), RETRY_S if self._waiting else None)
                self._changed.clear()
                for turn, wish in list(self._waiting.items()):
                    await self._try(turn, wish)
        finally:
            unsubscribe()

    async def _try(self, turn: BuildTurn, wish: Wish) -> None:
        try:
            turn.waits_for = await self._reports.claim(self._record(turn, wish))
        except KintsugiError as error:
            _log.debug(LogEvent.BUILD_POSTPONED, error=str(error))
            turn.waits_for = f"the registry cannot be asked for a turn: {error.message}"
        if turn.waits_for:
            return
        later = self._waiting.get(turn)
        if later is None or later.version != wish.version:  # it changed its mind meanwhile
            self._reports.give_back(*turn.replica, wish.version)
            return
        del self._waiting[turn]
        turn.granted = wish
        wish.wake()

    def _record(self, turn: BuildTurn, wish: Wish) -> IndexVersion:
        names = (*turn.replica, self._member, wish.version, turn.model, wish.encoding)
        return IndexVersion(*names, IndexVersionState.BUILDING)
