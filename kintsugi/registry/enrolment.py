"""How a process makes itself known: its record in the registry, and a lease that says it is alive.

Both are renewed as long as it runs, through every loss of Redis. Nothing of the cluster's safety rests on a lease: it
only tells who to ask and whom to wait for.
"""

from collections.abc import Callable
from contextlib import suppress

from kintsugi.errors import KintsugiError
from kintsugi.registry.leases import LeaseInfo
from kintsugi.registry.records import Member
from kintsugi.registry.store import RegistryStore
from kintsugi.registry.watch import RegistryHealth, RegistryWatcher

# Renewals per lease: two may fail before others take the member for dead.
_RENEWALS = 4


class Enrolment:
    """`info` tells what the lease says, each time it is renewed."""

    def __init__(
        self,
        store: RegistryStore,
        watcher: RegistryWatcher,
        member: Member,
        lease_s: float,
        info: Callable[[], LeaseInfo],
    ) -> None:
        self._store = store
        self._watcher = watcher
        self._member = member
        self._lease_s = lease_s
        self._info = info

    async def run(self) -> None:
        """Enrols and renews until cancelled; what fails is tried again at the next renewal. A changed registry is told
        in the lease at once, since others may wait for it."""
        while True:
            with suppress(KintsugiError):  # the watcher reports what is wrong with the registry, once
                await self._enrol()
                await self._store.renew_lease(self._member.id, int(self._lease_s * 1000), self._info())
            told = self._revision()
            await self._watcher.wait_for(lambda *_, told=told: self._revision() != told, self._lease_s / _RENEWALS)

    async def release(self) -> None:
        """Says goodbye, so that nobody waits for the lease to end."""
        with suppress(KintsugiError):  # it ends by itself
            await self._store.release_lease(self._member.id)

    async def _enrol(self) -> None:
        view = self._watcher.view
        if (
            view is not None
            and self._watcher.health is RegistryHealth.OK
            and view.members.get(self._member.id) != self._member
        ):
            await self._store.update(lambda _view: [self._member])
            await self._watcher.refresh()

    def _revision(self) -> int:
        view = self._watcher.view
        return view.snapshot.revision if view else 0
