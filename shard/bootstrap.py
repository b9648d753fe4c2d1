"""Fills a replica from a peer: a consistent copy of the peer's database, taken while the peer serves on.

    hold the log at the peer's position -> copy into a folder aside -> verify -> keep a divergent tail -> swap

The hold keeps the log from being trimmed beyond the copy, so the replica can go on from it. The log's byte bound rules:
when the log has kept too much for it, the coordinators drop the hold, and the replica starts over.
"""

import asyncio
import base64
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kintsugi.durable import DISK, publish_file
from kintsugi.errors import KintsugiError, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.positions import LogPositions
from kintsugi.log.records import unpack
from kintsugi.telemetry import LogEvent, logger
from shard.membership import Membership
from shard.peers import Peers
from shard.storage import Storage

_log = logger("bootstrap")

DATABASE_FILE = "data.mdb"
CHECK_HOLD_S = 1.0


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What a bootstrap needs of its replica. `tell` shows progress in the status."""

    member: str
    replica: shard_pb2.ReplicaRef
    peers: Peers
    positions: LogPositions
    membership: Membership
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic

    async def fetch(self, peer: str, incoming: Path) -> None:
        """Copies the peer's database into `incoming`. Unavailable when the replica may not be replaced, the peer fails,
        the log no longer holds what will follow the copy, or the copy is damaged."""
        await self.membership.start_over()
        answer = await self.peers.position(peer, self.replica)
        uid, number, seq = self.replica.collection_uid, self.replica.shard, answer.durable.seq
        if not (await self.positions.report(uid, number, self.member, seq)).held:
            raise Unavailable(f"the log does not hold what follows {seq}, where {peer} is; a copy could not go on")
        await asyncio.to_thread(empty_folder, incoming)
        _log.info(LogEvent.BOOTSTRAP_STARTED, **self._names(), peer=peer, hold_seq=answer.durable.seq)
        await self._copy(peer, incoming / DATABASE_FILE, seq)

    async def _copy(self, peer: str, target: Path, hold_seq: int) -> None:
        digest, claimed, received, total = hashlib.sha256(), b"", 0, 0
        checked_at = self.clock()
        with target.open("wb") as file:
            async for chunk in self.peers.snapshot(peer, self.replica):
                total = chunk.total_bytes or total
                claimed = chunk.sha256 or claimed
                await asyncio.to_thread(file.write, chunk.data)
                digest.update(chunk.data)
                received += len(chunk.data)
                self.tell(f"copying from {peer}: {received} of {total} bytes")
                if self.clock() - checked_at >= CHECK_HOLD_S:
                    checked_at = self.clock()
                    await self._check_hold(hold_seq)
        await asyncio.to_thread(DISK.sync_file, target)
        if claimed != digest.digest():
            raise Unavailable(f"copy from {peer} is damaged: {received} of {total} bytes, checksum differs")

    async def _check_hold(self, seq: int) -> None:
        """Unavailable when the log no longer waits for this copy. To report again would only take up the hold anew."""
        try:
            held = await self.positions.all(self.replica.collection_uid, self.replica.shard)
        except KintsugiError:
            return  # the copy goes on without Redis; replay judges it
        if self.member not in held:
            raise Unavailable(
                f"the log kept too much while this copy was made and no longer waits for it at {seq}; it starts over"
            )

    async def save_divergent_tail(self, peer: str, storage: Storage, folder: Path) -> Path | None:
        """Writes what this replica holds and the peer does not to a file, for people; None when there is nothing."""
        common = await self._last_common_seq(peer, storage)
        last = storage.position.seq
        # What is already trimmed every replica held; a tail that was trimmed whole cannot be saved, and says so.
        first = max(common + 1, storage.tail_first_seq)
        if common == last:
            return None
        path = folder / f"{self.replica.collection_uid}-{self.replica.shard}-{time.time_ns()}.jsonl"
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        records = await asyncio.to_thread(_write_tail, path, storage, first, last)
        _log.error(
            LogEvent.DIVERGENT_TAIL_SAVED,
            **self._names(),
            path=str(path),
            first_seq=first,
            last_seq=last,
            records=records,
        )
        return path

    async def _last_common_seq(self, peer: str, storage: Storage) -> int:
        """The highest seq at which both hold the same digest, by bisection: histories part once and never meet again."""
        low, high = max(storage.tail_first_seq - 1, 0), storage.position.seq
        while low < high:
            middle = (low + high + 1) // 2
            answer = await self.peers.position(peer, self.replica, digest_at=middle)
            if answer.digest and answer.digest == storage.digest_at(middle):
                low = middle
            else:
                high = middle - 1
        return low

    def _names(self) -> dict[str, object]:
        return {"collection_uid": self.replica.collection_uid, "shard": self.replica.shard}


def _write_tail(path: Path, storage: Storage, first: int, last: int) -> int:
    """Writes records as lines of JSON, however many they are, and returns how many."""
    records = 0
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        for entry in storage.tail(first, last) if storage.tail_first_seq else ():
            for seq, record in enumerate(unpack(entry.payload.data), entry.first_seq):
                line = {"seq": seq, "digest": entry.digest.hex(), "record": base64.b64encode(record).decode()}
                file.write(json.dumps(line) + "\n")
                records += 1
    publish_file(temporary, path)
    return records


def empty_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


async def first_serving_peer(peers: Peers, members: list[str], replica: shard_pb2.ReplicaRef) -> str:
    """A peer that answers for the replica, the most advanced one. Unavailable naming all of them when none does."""
    best, best_seq, reasons = "", -1, []
    for member in members:
        try:
            answer = await peers.position(member, replica)
        except KintsugiError as error:
            reasons.append(f"{member}: {error}")
            continue
        if answer.durable.seq > best_seq:
            best, best_seq = member, answer.durable.seq
    if not best:
        raise Unavailable(f"no in-sync peer can be copied from ({'; '.join(reasons) or 'there is none'})")
    return best
