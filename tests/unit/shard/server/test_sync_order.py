"""No acknowledgement before its sync (DESIGN 7): kill -9 keeps the page cache and proves nothing, so the order is recorded.

Through the real replica, log and LMDB, each commit is recorded with whether LMDB had synced it, by LMDB's own flags, and
each acknowledgement when it is given. Servers take their settings from the environment: with KINTSUGI_SYNC_WRITES=false
the whole suite runs, and test_no_acknowledgement_precedes_its_sync fails.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from kintsugi.durable import DISK, Disk
from kintsugi.internal.v1 import shard_pb2
from kintsugi.metrics import Metric
from shard.peers import to_wire
from shard.storage import StorageEvent


@dataclass(frozen=True)
class Acknowledged:
    """Somebody was told that `seq` is durable."""

    seq: int
    by: str


def violations(events) -> list[Acknowledged]:
    """The acknowledgements that no synced commit had covered when they were given."""
    synced_seq, found = 0, []
    for event in events:
        if isinstance(event, Acknowledged):
            if event.seq > synced_seq:
                found.append(event)
        elif event.kind == "commit" and event.synced:
            synced_seq = max(synced_seq, event.seq)
    return found


async def record_writes(fleet, stub_of, *arguments):
    """Writes through a server while others wait for each write in every way there is; returns what happened, in order."""
    events = []
    server = await fleet.start("a", *arguments, observe=events.append)
    await fleet.create(server)
    replica, stub = server.replica(), stub_of(server, server)

    async def write(number):
        position = (await fleet.write(number, number)).last

        async def hold():
            await replica.hold(position, 20, searchable=False)
            events.append(Acknowledged(position.seq, "hold"))

        async def answer():
            await stub.Await(shard_pb2.AwaitRequest(replica=replica.ref, position=to_wire(position)), timeout=20)
            events.append(Acknowledged(position.seq, "await"))

        async def wake():
            assert await replica.engine.reached(position.seq, 20, searchable=False)
            events.append(Acknowledged(position.seq, "waiter"))

        await asyncio.gather(hold(), answer(), wake())

    for first in range(1, 61, 12):
        await asyncio.gather(*(write(number) for number in range(first, first + 12)))
    return events


async def test_no_acknowledgement_precedes_its_sync(fleet, stub_of):
    """Every durable acknowledgement follows a commit of its record that LMDB had synced."""
    events = await record_writes(fleet, stub_of)
    acknowledged = [event for event in events if isinstance(event, Acknowledged)]
    assert {event.by for event in acknowledged} == {"hold", "await", "waiter"}
    assert len(acknowledged) == 180
    assert [event for event in events if isinstance(event, StorageEvent) and event.kind == "commit"]
    assert violations(events) == []


async def test_the_check_notices_writes_that_are_not_synced(fleet, stub_of):
    """With syncing turned off, every acknowledgement is a violation: the check can go red."""
    events = await record_writes(fleet, stub_of, "--sync-writes", "false")
    assert len(violations(events)) == 180


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([StorageEvent("commit", 3, True), Acknowledged(3, "a")], 0),
        ([Acknowledged(3, "a"), StorageEvent("commit", 3, True)], 1),
        ([StorageEvent("commit", 2, True), Acknowledged(3, "a"), StorageEvent("commit", 3, True)], 1),
        ([StorageEvent("commit", 3, False), Acknowledged(3, "a")], 1),
        ([StorageEvent("fence", 3, True), Acknowledged(3, "a")], 1),
    ],
)
def test_the_check_knows_the_order(events, expected):
    """Too early, not covered, not synced, and a transaction without the records are each found."""
    assert len(violations(events)) == expected


class RecordingDisk:
    """Does what the disk does, and remembers the order; `files` of a rename are those it gave their final name."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.disk = Disk(self._sync_file, self._sync_folder, self._rename)

    def _sync_file(self, path: Path) -> None:
        DISK.sync_file(path)
        self.calls.append(("file", path))

    def _sync_folder(self, path: Path) -> None:
        DISK.sync_folder(path)
        self.calls.append(("folder", path))

    def _rename(self, source: Path, target: Path) -> None:
        files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
        DISK.rename(source, target)
        self.calls.append(("rename", source, target, files))


def unsafe_renames(calls) -> list[str]:
    """What a power cut could tear: files renamed before their sync, and renames whose folder was not synced after."""
    found = []
    for place, (kind, *details) in enumerate(calls):
        if kind != "rename":
            continue
        source, target, files = details
        before, after = calls[:place], calls[place + 1 :]
        found += [f"{path} before its sync" for path in files if ("file", path) not in before]
        if files != [source] and ("folder", source) not in before:
            found.append(f"{source} before its sync")
        if ("folder", target.parent) not in after[:1]:
            found.append(f"{target} without a sync of its folder")
    return found


async def test_checkpoints_get_their_name_only_once_they_are_on_disk(open_replica):
    """Files of a checkpoint are synced, then its folder, then it is renamed, then the folder around it is synced."""
    replica, recorder = open_replica(8, Metric.COSINE), RecordingDisk()
    random = np.random.default_rng(0)
    replica.put({number: random.normal(size=8).astype(np.float32) for number in range(50)})
    async with replica.serving(disk=recorder.disk):
        pass
    renames = [call for call in recorder.calls if call[0] == "rename"]
    assert any(len(call[3]) > 1 for call in renames), "a checkpoint has several files"
    assert unsafe_renames(recorder.calls) == []


def test_the_check_of_renames_notices_each_omission(tmp_path):
    """A rename before a file's sync, before its folder's, or without the sync after it, is found."""
    source, target = tmp_path / "new", tmp_path / "old"
    file = source / "data"
    whole = [("file", file), ("folder", source), ("rename", source, target, [file]), ("folder", tmp_path)]
    assert unsafe_renames(whole) == []
    for missing in (0, 1, 3):
        assert len(unsafe_renames([call for place, call in enumerate(whole) if place != missing])) == 1
    assert len(unsafe_renames([whole[2], whole[0], whole[1], whole[3]])) == 3
