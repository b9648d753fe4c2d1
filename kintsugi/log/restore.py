"""Rebuilds the log of a shard from what replicas hold, under a higher epoch and with the same sequence numbers.

Guarantees that a log is replaced only under a higher epoch, that what is appended continues the chain from the base, and
that the log takes writes again only after finish confirmed where it ends. Each call may be repeated; begin starts over.
Choosing the base, the entries and the epoch, and keeping other restorers away, is recovery's part.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from kintsugi.keys import Keys
from kintsugi.log.faults import LogForked, LogGap, RestoreRefused
from kintsugi.log.payload import Payload
from kintsugi.log.scripts import log_script, shard_keys
from kintsugi.position import Position
from kintsugi.redis_client import RedisClient, Script, redis_errors

_BEGIN = log_script("restore_begin.lua")
_APPEND = log_script("restore_append.lua")
_FINISH = log_script("restore_finish.lua")


class LogRestorer:
    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def begin(
        self, uid: str, shard: int, incarnation: int, epoch: int, base: Position, positions: Mapping[str, int]
    ) -> None:
        """Empties the log and refuses appends until finish. `base` is what the first restored entry will follow,
        `positions` replace all those reported before. Raises RestoreRefused when the log has that epoch or a higher one,
        unless this very restoration is under way, which then starts over."""
        args: list[bytes | str | int] = [incarnation, epoch, base.seq, base.digest]
        for member, seq in positions.items():
            args += [member, seq]
        await self._run(_BEGIN, uid, shard, args)

    async def append(
        self, uid: str, shard: int, incarnation: int, epoch: int, entries: Iterable[tuple[int, Payload, bytes]]
    ) -> None:
        """Appends (seq, payload, digest) in order, all or none. Entries that are already there are skipped. Raises
        LogGap, LogForked, or RestoreRefused when this restoration is no longer under way."""
        args: list[bytes | str | int] = [incarnation, epoch]
        for seq, payload, digest in entries:
            args += [seq, payload.records, digest, payload.data]
        await self._run(_APPEND, uid, shard, args)

    async def finish(self, uid: str, shard: int, incarnation: int, epoch: int, last: Position) -> None:
        """Opens the log for writes. Raises RestoreRefused unless it ends with `last` (its epoch is not compared)."""
        await self._run(_FINISH, uid, shard, [incarnation, epoch, last.seq, last.digest])

    async def _run(self, script: Script, uid: str, shard: int, args: list[bytes | str | int]) -> None:
        with redis_errors(f"restoring log {uid}/{shard}"):
            reply: list[Any] = await script.run(self._client, shard_keys(self._keys, uid, shard), args)
        status, *details = (part.decode() for part in reply)
        detail = " ".join(details)
        if status == "FORKED":
            raise LogForked(f"restored entry {detail} of log {uid}/{shard} does not continue the history before it")
        if status == "GAP":
            raise LogGap(f"restored entry {details[1]} of log {uid}/{shard} follows {details[0]}")
        if status != "OK":
            raise RestoreRefused(f"log {uid}/{shard} refuses the restoration under {args[0]!r}/{args[1]!r}: {detail}")
