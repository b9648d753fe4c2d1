"""Reads the log of one shard.

Guarantees that what it returns belongs to the epoch asked for and is in order; verify_next and LogReader.verify find
out what Redis lost or replaced, since a stream itself returns what is left without an error. Remembers nothing between
calls. Knows nothing of what the payloads say.
"""

from dataclasses import dataclass
from typing import Any

from kintsugi.keys import Keys
from kintsugi.log.chain import extend
from kintsugi.log.faults import LogBehind, LogForked, LogGap, LogMissing, LogMoved, LogRestoring
from kintsugi.log.scripts import log_script, shard_keys
from kintsugi.position import Position
from kintsugi.redis_client import MAX_BLOCK_MS, RedisClient, redis_errors

_INSPECT = log_script("inspect.lua")
_PAYLOAD = b"p"
_DIGEST = b"d"
_RECORDS = b"n"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry. `seq` is that of its last record; `digest` chains over every payload up to and including this one."""

    epoch: int
    seq: int
    payload: bytes
    digest: bytes
    records: int = 1

    @property
    def first_seq(self) -> int:
        return self.seq - self.records + 1

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.seq, self.digest)


@dataclass(frozen=True, slots=True)
class Head:
    """A log as a whole. `position` is its last entry, `first_seq` the first record of its oldest kept entry, `first_end_seq`
    the last one of it (both one above the last entry when none is kept), `base_seq` and `base_digest` what the epoch's first entry follows, `bytes` what the kept entries cost."""

    incarnation: int
    position: Position
    base_seq: int
    base_digest: bytes
    first_seq: int
    first_end_seq: int
    bytes: int
    open: bool


def verify_next(previous: Position, entry: LogEntry) -> Position:
    """The position after `entry`. Raises LogGap when entries before it are missing, and LogForked when it does not
    continue the history that ends at `previous`. The epoch may have risen."""
    if entry.epoch < previous.epoch:
        raise LogForked(f"entry {entry.seq} is of epoch {entry.epoch}, the position before it of {previous.epoch}")
    if entry.first_seq > previous.seq + 1:
        raise LogGap(f"entry {entry.first_seq} follows position {previous.seq}, {previous.seq + 1} is gone")
    if entry.first_seq <= previous.seq:
        raise LogForked(f"entry {entry.first_seq} follows position {previous.seq}, must be {previous.seq + 1}")
    if extend(previous.digest, entry.seq, entry.payload) != entry.digest:
        raise LogForked(f"entry {entry.seq} of epoch {entry.epoch} does not continue the history before it")
    return entry.position


class LogReader:
    def __init__(self, client: RedisClient, keys: Keys, uid: str, shard: int) -> None:
        self._client = client
        self._scripts_keys = shard_keys(keys, uid, shard)
        self._log = keys.shard(uid, shard).log
        self._name = f"log {uid}/{shard}"

    async def head(self) -> Head | None:
        """None when there is no log."""
        reply = await self._inspect(0)
        return None if reply is None else _head(reply)

    async def verify(self, incarnation: int, epoch: int, position: Position) -> Head:
        """Compares a replica's position with the log, as every replica does before it reads and after every reconnect.

        Raises LogMissing, LogMoved, LogRestoring, LogBehind (the log ends before `position`, or lost its last entries),
        LogForked (another entry at `position`) or LogGap (the entry after `position` is no longer kept).
        """
        reply = await self._inspect(position.seq)
        if reply is None:
            raise LogMissing(f"{self._name} is missing")
        head = _head(reply)
        if (head.incarnation, head.position.epoch) != (incarnation, epoch):
            raise self._moved(head.incarnation, head.position.epoch, f"{incarnation}/{epoch}")
        if not head.open:
            raise LogRestoring(f"{self._name} is being restored")
        whole, digest = reply[10:]
        if head.position.seq < position.seq or not whole:
            lost = "" if whole else " and lost its last entries"
            raise LogBehind(f"{self._name} ends at {head.position.seq}{lost}, the replica is at {position.seq}")
        if digest is not None and digest != position.digest:
            raise LogForked(f"{self._name} has another entry at {position.seq}")
        if head.first_seq > position.seq + 1:
            raise LogGap(f"{self._name} begins at {head.first_seq}, the replica is at {position.seq}")
        return head

    async def entry(self, epoch: int, seq: int) -> LogEntry | None:
        """The entry that ends with the record `seq`, None when it is not kept."""
        entry_id = f"{epoch}-{seq}"
        with redis_errors(f"reading {self._name}"):
            found: Any = await self._client.xrange(self._log, entry_id, entry_id)
        return _entry(found[0]) if found else None

    async def read(self, epoch: int, after_seq: int, count: int, block_ms: int = 0) -> list[LogEntry]:
        """Up to `count` entries after `after_seq`, waiting up to `block_ms` for one to come (0 does not wait). Raises
        LogMoved when the stream holds entries of another epoch. Does not compare digests: see verify_next."""
        block = min(block_ms, MAX_BLOCK_MS) or None
        with redis_errors(f"reading {self._name}"):
            found: Any = await self._client.xread({self._log: f"{epoch}-{after_seq}"}, count=count, block=block)
        entries = [_entry(item) for _, items in found or () for item in items]
        for entry in entries:
            if entry.epoch != epoch:
                raise self._moved(None, entry.epoch, f"epoch {epoch}")
        return entries

    def _moved(self, incarnation: int | None, epoch: int, expected: str) -> LogMoved:
        found = f"epoch {epoch}" if incarnation is None else f"{incarnation}/{epoch}"
        return LogMoved(f"{self._name} is at {found}, not {expected}", incarnation=incarnation, epoch=epoch)

    async def _inspect(self, seq: int) -> Any:
        with redis_errors(f"reading the head of {self._name}"):
            return await _INSPECT.run(self._client, self._scripts_keys, [seq])


def _head(reply: list[Any]) -> Head:
    incarnation, epoch, seq, digest, base_seq, base_digest, state, first_seq, first_end_seq, kept_bytes = reply[:10]
    return Head(
        incarnation=int(incarnation),
        position=Position(int(epoch), int(seq), digest),
        base_seq=int(base_seq),
        base_digest=base_digest,
        first_seq=int(first_seq),
        first_end_seq=int(first_end_seq),
        bytes=int(kept_bytes),
        open=state == b"open",
    )


def _entry(item: tuple[bytes, dict[bytes, bytes]]) -> LogEntry:
    entry_id, fields = item
    epoch, _, seq = entry_id.partition(b"-")
    return LogEntry(int(epoch), int(seq), fields[_PAYLOAD], fields[_DIGEST], int(fields.get(_RECORDS, 1)))
