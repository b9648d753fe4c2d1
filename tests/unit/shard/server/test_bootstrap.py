"""Copying from a peer while the log waits for the copy, or no longer does."""

import hashlib
from itertools import count

import pytest

from kintsugi.errors import Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.append import LogWriter
from kintsugi.log.positions import LogPositions
from shard.bootstrap import DATABASE_FILE, Bootstrap

UID, ME, PEER = "c1", "me", "peer"
REF = shard_pb2.ReplicaRef(collection_uid=UID, shard=0)
DATA = [b"one", b"two", b"three"]


class Peers:
    """A peer at the start of the log, with a database in three pieces. `between` is awaited after the first one."""

    def __init__(self):
        self.between = None

    async def position(self, member, replica):
        return shard_pb2.GetPositionResponse(durable=shard_pb2.Position(epoch=1))

    async def snapshot(self, member, replica):
        for number, data in enumerate(DATA):
            yield shard_pb2.SnapshotChunk(data=data, total_bytes=sum(map(len, DATA)))
            if number == 0 and self.between is not None:
                await self.between()
        yield shard_pb2.SnapshotChunk(sha256=hashlib.sha256(b"".join(DATA)).digest())


class Membership:
    async def start_over(self):
        pass


@pytest.fixture
async def copying(redis, keys):
    """A bootstrap whose every look at the clock is two seconds later."""
    await LogWriter(redis, keys, max_log_bytes=2**20).create(UID, 0, 1, 1, [PEER])
    positions = LogPositions(redis, keys)
    return Bootstrap(ME, REF, Peers(), positions, Membership(), lambda _: None, count(step=2).__next__)


async def test_a_copy_is_held_and_arrives_whole(copying, tmp_path):
    """The log waits for it at the position that the peer had before."""
    await copying.fetch(PEER, tmp_path / "incoming")
    assert (tmp_path / "incoming" / DATABASE_FILE).read_bytes() == b"".join(DATA)
    assert await copying.positions.all(UID, 0) == {PEER: 0, ME: 0}


async def test_a_copy_that_the_log_no_longer_waits_for_is_given_up(copying, tmp_path):
    """It says why, and does not take up the hold again: the log needs the room."""
    copying.peers.between = lambda: copying.positions.drop(UID, 0, ME)
    with pytest.raises(Unavailable, match="no longer waits for it at 0; it starts over"):
        await copying.fetch(PEER, tmp_path / "incoming")
    assert await copying.positions.all(UID, 0) == {PEER: 0}
