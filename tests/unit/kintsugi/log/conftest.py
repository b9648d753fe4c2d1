"""A log on the session's Valkey, and the calls that most of its tests make."""

from dataclasses import dataclass, field
from itertools import count

import pytest

from kintsugi.keys import Keys
from kintsugi.log.append import AppendRequest, AppendResult, LogTarget, LogWriter
from kintsugi.log.payload import Payload
from kintsugi.log.positions import LogPositions
from kintsugi.log.read import LogReader
from kintsugi.log.restore import LogRestorer
from kintsugi.position import START, Position
from kintsugi.redis_client import RedisClient

UID = "c1"
SHARD = 3


@dataclass
class Log:
    """One log in incarnation 1, epoch 1, with the member `a`."""

    client: RedisClient
    keys: Keys
    max_log_bytes: int = 10_000_000
    numbers: count = field(default_factory=count)

    @property
    def writer(self) -> LogWriter:
        return LogWriter(self.client, self.keys, max_log_bytes=self.max_log_bytes)

    @property
    def reader(self) -> LogReader:
        return LogReader(self.client, self.keys, UID, SHARD)

    @property
    def positions(self) -> LogPositions:
        return LogPositions(self.client, self.keys)

    @property
    def restorer(self) -> LogRestorer:
        return LogRestorer(self.client, self.keys)

    @property
    def stream(self) -> str:
        return self.keys.shard(UID, SHARD).log

    def target(self, *, incarnation: int = 1, epoch: int = 1, floor: Position = START) -> LogTarget:
        return LogTarget(UID, SHARD, incarnation, epoch, floor)

    async def create(self) -> None:
        await self.writer.create(UID, SHARD, 1, 1, ["a"])

    async def append(self, *payloads: bytes, request_id: str = "", **target) -> AppendResult:
        """Appends one request and returns its result, or raises its error."""
        parts = [Payload(payload) for payload in payloads]
        request = AppendRequest(request_id or f"drawn-{next(self.numbers)}", parts)
        (result,) = await self.writer.append(self.target(**target), [request], 5.0)
        if isinstance(result, Exception):
            raise result
        return result

    async def report(self, member: str, seq: int) -> bool:
        return (await self.positions.report(UID, SHARD, member, seq)).held

    async def entries(self, epoch: int = 1, after_seq: int = 0):
        return await self.reader.read(epoch, after_seq, 10_000)


@pytest.fixture
async def log(redis: RedisClient, keys: Keys) -> Log:
    made = Log(redis, keys)
    await made.create()
    return made
